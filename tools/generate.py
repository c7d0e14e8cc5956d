"""Generate the Python stubs from protos/ into gen/python, or into the directory given as an argument.

`make generate` runs it with the interpreter of .venv-oldest: generated code from a newer protoc fails on an
older runtime, never the reverse. With --plugin, as in buf.gen.yaml, it speaks protoc's plugin protocol on
stdin and stdout. tests/test_generated.py compares the committed files with the output of both ways.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse

GRPCIO_TOOLS = "1.76.0"
ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
KINDS = ("python", "pyi", "grpc_python")


def generate(files: Iterable[str], out: Path) -> None:
    """Write the code of `files` and the markers of a typed package to `out`."""
    files = sorted(files)
    flags = [f"--{kind}_out={out}" for kind in KINDS]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}", *flags, *files]
    if subprocess.run(command, check=False).returncode != 0:
        sys.exit("protoc failed; its error is above.")
    for folder in {parent for file in files for parent in Path(file).parents} - {Path()}:
        (out / folder / "__init__.py").touch()
        if folder.parent == Path():
            (out / folder / "py.typed").touch()


def answer(request_bytes: bytes) -> bytes:
    """Return the CodeGeneratorResponse to a CodeGeneratorRequest, with code compiled from protos/.

    The descriptors in the request are not used: those of buf contain JSON names, which protoc does not
    write into its code.
    """
    request = CodeGeneratorRequest.FromString(request_bytes)
    response = CodeGeneratorResponse(supported_features=CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL)
    with tempfile.TemporaryDirectory() as folder:
        generate(request.file_to_generate, Path(folder))
        for path in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
            response.file.add(name=str(path.relative_to(folder)), content=path.read_text("utf-8"))
    return response.SerializeToString()


def main() -> None:
    """Generate the code, or run as a plugin; refuse any version except the one of the committed code."""
    found = importlib.metadata.version("grpcio-tools")
    if found != GRPCIO_TOOLS:
        sys.exit(f"gen/ needs grpcio-tools {GRPCIO_TOOLS}, and this is {found}: run `make generate`.")
    if sys.argv[1:] == ["--plugin"]:
        sys.stdout.buffer.write(answer(sys.stdin.buffer.read()))
        return
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "gen" / "python"
    out.mkdir(parents=True, exist_ok=True)
    generate((str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto")), out)


if __name__ == "__main__":
    main()
