package scenarios

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"linkage.alipayhk/go/linkage"
)

type scenario struct {
	Name string `json:"name"`
	// Steps are decoded one by one, so that an invalid step fails only its own scenario.
	Steps []json.RawMessage `json:"steps"`
}

type step struct {
	Method     string          `json:"method"`
	Request    json.RawMessage `json:"request"`
	DeadlineMs int64           `json:"deadline_ms"`
	Answers    []string        `json:"answers"`
	Expect     *expectations   `json:"expect"`
}

func TestScenarios(t *testing.T) {
	scenarios := read(t)
	client := connect(t)
	setting(t, "LINKAGE_CONSOLE", "the sandbox's http://host:port")
	for _, scenario := range scenarios {
		t.Run(scenario.Name, func(t *testing.T) {
			if len(scenario.Steps) == 0 {
				t.Fatal("the scenario has no steps")
			}
			for number, text := range scenario.Steps {
				one := step{DeadlineMs: 10_000}
				decoder := json.NewDecoder(bytes.NewReader(text))
				// An unknown field can be an expectation that this test would not check.
				decoder.DisallowUnknownFields()
				if err := decoder.Decode(&one); err != nil {
					t.Fatalf("step %d is invalid: %v", number+1, err)
				}
				if one.Expect == nil {
					t.Fatalf("step %d has no expectations", number+1)
				}
				do(t, client, number+1, one)
			}
		})
	}
}

func read(t *testing.T) []scenario {
	t.Helper()
	text, err := os.ReadFile(setting(t, "LINKAGE_SCENARIOS", "the path of clients/scenarios.json"))
	if err != nil {
		t.Fatal(err)
	}
	run := setting(t, "LINKAGE_RUN", "a prefix of this run's request ids")
	var file struct {
		Scenarios []scenario `json:"scenarios"`
	}
	if err := json.Unmarshal([]byte(strings.ReplaceAll(string(text), "${run}", run)), &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Scenarios) == 0 {
		t.Fatal("The file in LINKAGE_SCENARIOS has no scenarios.")
	}
	return file.Scenarios
}

func do(t *testing.T, client *linkage.Client, number int, one step) {
	t.Helper()
	if len(one.Answers) > 0 {
		setAnswers(t, one.Method, one.Answers)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(one.DeadlineMs)*time.Millisecond)
	defer cancel()
	start := time.Now()
	r, err := call(ctx, client, one.Method, one.Request)
	took := time.Since(start)
	if err != nil {
		t.Fatalf("step %d: %v", number, err)
	}
	for _, miss := range one.Expect.misses(r, took) {
		t.Errorf("step %d: %s; the result is %v", number, miss, r)
	}
}

// setAnswers sets the sandbox's answers to the next requests of an API.
func setAnswers(t *testing.T, api string, faults []string) {
	t.Helper()
	answers := []map[string]string{}
	for _, fault := range faults {
		answers = append(answers, map[string]string{"fault": fault})
	}
	body, err := json.Marshal(map[string]any{"answers": answers, "api": api})
	if err != nil {
		t.Fatal(err)
	}
	// A new transport does not use a proxy from the environment, unlike the default one.
	http := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	reply, err := http.Post(os.Getenv("LINKAGE_CONSOLE")+"/__sandbox/answers", "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	if body, _ := io.ReadAll(reply.Body); reply.StatusCode != 200 {
		t.Fatalf("the sandbox returned %s: %s", reply.Status, body)
	}
}
