package main

import (
	"os"
	"strconv"
	"testing"
	"time"
)

func TestPercentileIsOneOfTheLatencies(t *testing.T) {
	var sorted []time.Duration
	if percentile(sorted, 99) != 0 {
		t.Error("without calls")
	}
	for number := range 200 {
		sorted = append(sorted, time.Duration(number+1)*time.Millisecond)
	}
	for percent, want := range map[float64]float64{0: 1, 50: 100, 99: 198, 99.9: 200, 100: 200} {
		if got := percentile(sorted, percent); got != want {
			t.Errorf("p%g is %g, not %g", percent, got, want)
		}
	}
}

func TestCPUTimeOfProcessesIsAdded(t *testing.T) {
	pid := strconv.Itoa(os.Getpid())
	for ticks := 0; ticks == 0; { // The test's timeout ends this loop if no CPU time is found.
		var err error
		if ticks, err = cpuTicks(pid); err != nil {
			t.Fatal(err)
		}
	}
	once, _ := cpuTicks(pid)
	if twice, err := cpuTicks(pid + "," + pid); err != nil || twice < 2*once {
		t.Errorf("%d ticks, twice %d: %v", once, twice, err)
	}
}
