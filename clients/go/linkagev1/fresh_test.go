package linkagev1_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

const root = "../../.."

func TestGeneratedCodeIsWhatGoGenerateMakes(t *testing.T) {
	buf := filepath.Join(root, ".venv", "bin", "buf")
	if _, err := os.Stat(buf); err != nil {
		t.Fatal(".venv/bin/buf is missing, and this test needs it: run `make setup` at the repository's root.")
	}
	out := t.TempDir()
	// buf finds its plugins, its template and the protos from the root.
	command := exec.Command(filepath.Join(".venv", "bin", "buf"), "generate", "--template", "clients/go/buf.gen.yaml", "--output", out)
	command.Dir = root
	if said, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	made, committed := files(t, filepath.Join(out, "clients/go/linkagev1")), files(t, ".")
	for name, text := range made {
		if !bytes.Equal(text, committed[name]) {
			t.Errorf("%s does not fit protos/: run `go generate ./...` in clients/go and commit it.", name)
		}
	}
	for name := range committed {
		if made[name] == nil {
			t.Errorf("%s is made by nothing in protos/: remove it.", name)
		}
	}
	if len(made) == 0 {
		t.Error("nothing was made")
	}
}

func files(t *testing.T, directory string) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(directory, "*.pb.go"))
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string][]byte{}
	for _, path := range paths {
		if texts[filepath.Base(path)], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	return texts
}
