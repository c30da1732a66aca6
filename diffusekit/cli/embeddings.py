"""`diffusekit embeddings`: the learned tokens that are here, looked at, brought in, handed out, put away."""

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..display import format_count, printable
from ..errors import DiskError, FileRefused, UsageError
from ..workspace import Workspace

if TYPE_CHECKING:
    from ..embeddings import LearnedToken
    from ..models import Model

app = typer.Typer(help="Learned tokens: list, look at, bring in, hand out.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="A name in ./embeddings, or a path.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Write over a file that is there.")]
ModelName = Annotated[str | None, typer.Option("--model", help="Whose words. [default: mini]")]


@app.callback()
def _group() -> None: ...


@app.command("list")
def list_command(as_json: Json = False) -> None:
    """List the tokens in ./embeddings; files that are no good are named on stderr."""
    from ..embeddings import list_files, read

    rows = []
    for path in list_files():
        try:
            rows.append(_summary(read(path)))
        except FileRefused as refused:
            print(f"left out: {printable(refused.message)}", file=sys.stderr)
    if as_json:
        print(json.dumps({"embeddings": rows}))
        return
    for row in rows:
        width = "+".join(str(w) for w in row["width"])
        few = format_count(row["vectors"], "vector")
        print(printable(f"{row['name']:<24} {row['token']:<16} {few:<11} {width:<9} {row['base_model']}"))


def _summary(token: "LearnedToken") -> dict[str, Any]:
    return {
        "name": token.name,
        "token": token.token,
        "vectors": token.count,
        "width": list(token.width),
        "base_model": token.metadata.get("base_model", ""),
        "path": str(token.path),
        "sha256": token.sha256,
    }


@app.command("show")
def show(name: Name, model: ModelName = None, as_json: Json = False) -> None:
    """Show what is known of a token, and which words lie near its vectors."""
    from ..embeddings import check_compatible, load_token
    from ..models import load

    token = load_token(name)
    told = {k: _value(v) for k, v in token.metadata.items() if len(v) < 4000}  # no packed vectors
    found: dict[str, Any] = _summary(token) | _run_of(token) | {"facts": told}
    base = load(model or "mini")
    try:
        check_compatible(token, base)
        found["encoders"] = [_near(token, base, i) for i in range(len(token.vectors))]
    except FileRefused as refused:
        if model is not None:
            raise
        print(f"no words: {printable(refused.message)}", file=sys.stderr)
    if as_json:
        print(json.dumps(found))
        return
    for key, value in found.items():
        if key not in ("facts", "encoders") and value != "":
            print(f"{key.replace('_', ' '):<12} {_text(value)}")
    for key, value in found["facts"].items():
        if key != "base_model":
            print(f"{printable(key).replace('_', ' '):<12} {_text(value)}")
    for encoder in found.get("encoders", []):
        for number, vector in enumerate(encoder["vectors"], 1):
            near = ", ".join(f"{word} {cosine:.2f}" for word, cosine in vector["nearest"])
            print(
                f"vector {number:<5} norm {vector['norm']:.2f} (longer than "
                f"{vector['percentile']:.0f} % of words; typical {encoder['typical_norm']:.2f}), "
                f"near {printable(near)}"
            )


def _run_of(token: "LearnedToken") -> dict[str, str]:
    """The page and the strip of previews of the run that learned a token, where they are."""
    from ..inversion.run_folder import RunFolder

    assert token.path is not None
    run = RunFolder(token.path.parent, token.path.stem)
    places = {"page": run.page, "previews": run.strip}
    return {key: str(path) for key, path in places.items() if path.is_file()}


def _near(token: "LearnedToken", base: "Model", encoder: int) -> dict[str, Any]:
    """Length and nearest words of a token's vectors for one text encoder."""
    from ..embeddings import Vocabulary

    words = Vocabulary(base, encoder)
    vectors = token.vectors[encoder]
    norms = vectors.norm(dim=1)
    rows = zip(norms.tolist(), words.percentile(norms), words.nearest(vectors), strict=True)
    return {
        "typical_norm": words.typical_norm,
        "vectors": [{"norm": n, "percentile": p, "nearest": near} for n, p, near in rows],
    }


def _value(text: str) -> Any:
    """A fact as JSON if it is an object or a list (scores), else as it stands."""
    try:
        value = json.loads(text) if text[:1] in ("{", "[") else text
    except (ValueError, RecursionError):
        return text
    return value


def _text(value: Any) -> str:
    return printable(value if isinstance(value, str) else json.dumps(value)).replace("\n", " ")[:400]


@app.command("import")
def import_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Of any program: .pt, .bin, .png.")],
    name: Annotated[str | None, typer.Option("--name", help="Default: the file's.")] = None,
    token: Annotated[str | None, typer.Option("--token", help="Its word in prompts.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder.")] = Path("embeddings"),
    overwrite: Overwrite = False,
) -> None:
    """Bring in a token that another program wrote; pickles are opened where they can do no harm."""
    from dataclasses import replace

    from ..embeddings import import_pickle, save, token_error

    if token is not None and (fault := token_error(token)):
        raise UsageError(f"the token {token!r} {fault}", "choose a word like S*")
    if name is not None:
        _check_name(name)
    found = import_pickle(file, token or "")
    origin = {"imported_sha256": found.sha256}
    found = replace(found, name=name or found.name, metadata=found.metadata | origin)
    print(save(found, output / f"{found.name}.safetensors", overwrite=overwrite))


def _check_name(name: str) -> None:
    from ..embeddings import name_error, safe_name

    if fault := name_error(name):
        raise UsageError(f"the name {name[:120]!r} {fault}", f"for example {safe_name(name)}")


@app.command("export")
def export_command(
    name: Name,
    to: Annotated[str, typer.Option("--to", help="diffusers, a1111, kohya or invokeai.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File or folder.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a token the way another program wants it."""
    from ..embeddings import export_token, load_token

    token = load_token(name)
    for path in export_token(token, output or Path("exports") / f"{token.name}-{to}", to, overwrite=overwrite):
        print(path)


@app.command("remove")
def remove(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    run: Annotated[bool, typer.Option("--run", help="Also the folder of its training.")] = False,
) -> None:
    """Delete a token's file; the folder of its training stays, unless --run says otherwise."""
    from ..embeddings.lookup import path_of
    from ..inversion.run_folder import RunFolder

    path = path_of(name)
    _check_learned(path)
    its = RunFolder(path.parent, path.stem)
    doomed = [path, *([its.folder] if run and its.begun else [])]
    what = " and ".join(str(place) for place in doomed)
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"{what} would be deleted, and nobody can be asked", "say --yes")
        if not typer.confirm(f"Delete {what}?", err=True):
            raise UsageError("nothing was deleted", "answer y to delete")
    for place in doomed:
        try:
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)
            else:
                place.unlink()
        except OSError as error:
            reason = error.strerror or error
            raise DiskError(f"{place} could not be deleted: {reason}", "may you write there?") from None
        print(place)
    print(f"deleted {what}", file=sys.stderr)


def _check_learned(path: Path) -> None:
    """Raise `FileRefused` unless a learned token lies there, or a damaged one in ./embeddings."""
    from ..embeddings import list_files, read

    if path.resolve() in [known.resolve() for known in list_files()]:
        return
    try:
        read(path)
    except FileRefused as refused:
        raise FileRefused(
            f"nothing is deleted: {refused.message}",
            "only learned tokens are removed; diffusekit embeddings list names them",
        ) from None


@app.command("combine")
def combine_command(
    expression: Annotated[str, typer.Argument(metavar="EXPRESSION", help='"cat - red + blue"')],
    model: ModelName = None,
    count: Annotated[int, typer.Option("--count", min=1, max=1000, help="Words to show.")] = 8,
    as_json: Json = False,
) -> None:
    """Add and subtract words and learned tokens, and show which words lie nearest."""
    from ..embeddings import Vocabulary, check_compatible, combine, tokens_in_prompts
    from ..models import load

    tokens = tokens_in_prompts([expression], setting="")
    base = load(model or "mini")
    for token in tokens:
        check_compatible(token, base)
    words = Vocabulary(base)
    vector = combine(words, expression, tokens)
    (near,) = words.nearest(vector[None], count, leave_out=expression.split())
    if as_json:
        print(json.dumps({"expression": expression, "nearest": near}))
        return
    for word, cosine in near:
        print(f"{cosine:6.3f}  {printable(word)}")


@app.command("interpolate")
def interpolate_command(
    name: Name,
    amount: Annotated[float, typer.Argument(help="0: its start words; 1: what was learned.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Name of the new token.")],
    model: ModelName = None,
    overwrite: Overwrite = False,
) -> None:
    """Make a token easier to edit: go part of the way back to the words it was learned from."""
    from dataclasses import replace

    from ..embeddings import interpolate, load_token, save

    output = output.removesuffix(".safetensors")
    _check_name(output)
    token = load_token(name)
    between = interpolate(token, _start(token, model), amount)
    facts = {k: v for k, v in between.metadata.items() if k != "word"} | _word(output, token, model)
    between = replace(between, name=output, token=f"<{output}>", metadata=facts)
    print(save(between, Workspace().embeddings / f"{output}.safetensors", overwrite=overwrite))


def _word(name: str, token: "LearnedToken", model: str | None) -> dict[str, str]:
    """The fact that a name is a word of the token's model, where that is at hand."""
    from ..embeddings import Vocabulary, check_compatible
    from ..models import load

    base = load(model or "mini")
    try:
        check_compatible(token, base)
    except FileRefused:
        return {}
    return Vocabulary(base).word(name)


def _start(token: "LearnedToken", model: str | None) -> Any:
    """The vectors a token was learned from: as its file says, or the rows of its first words."""
    from ..embeddings import Vocabulary, check_compatible, decode_vectors
    from ..models import load

    for fact in ("start_vectors", "start"):
        try:
            return decode_vectors(token.metadata.get(fact, ""), token.vectors)
        except FileRefused:  # `start` may also say how it began: "word", "output"
            pass
    words = token.metadata.get("init", "")
    if not words:
        raise FileRefused(f"{token.name} does not say what it was learned from", "learn it again with --init")
    base = load(model or "mini")
    check_compatible(token, base)
    rows = [Vocabulary(base, i).vectors(words) for i in range(len(token.vectors))]
    return tuple(r.repeat(-(-token.count // len(r)), 1)[: token.count] for r in rows)
