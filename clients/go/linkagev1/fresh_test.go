package linkagev1_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

const root = "../../.."

func TestGeneratedCodeIsUpToDate(t *testing.T) {
	buf := filepath.Join(root, ".venv", "bin", "buf")
	if _, err := os.Stat(buf); err != nil {
		t.Fatal("This test needs .venv/bin/buf: run `make setup` in the root of the repository.")
	}
	out := t.TempDir()
	// The paths of the plugins, the template and the protos are relative to the root.
	command := exec.Command(filepath.Join(".venv", "bin", "buf"), "generate", "--template", "clients/go/buf.gen.yaml", "--output", out)
	command.Dir = root
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	generated, committed := files(t, filepath.Join(out, "clients/go/linkagev1")), files(t, ".")
	for name, text := range generated {
		if !bytes.Equal(text, committed[name]) {
			t.Errorf("%s is not up to date with protos/: run `go generate ./...` in clients/go, and commit the result.", name)
		}
	}
	for name := range committed {
		if generated[name] == nil {
			t.Errorf("%s has no source in protos/: remove it.", name)
		}
	}
	if len(generated) == 0 {
		t.Error("no file was generated")
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
