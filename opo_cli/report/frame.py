"""What every HTML page of a report is made with: one skeleton, one style, scripts known by their
hashes, and text that no browser runs."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from opo_cli.errors import OpoError
from opo_cli.report.pageparts import harmless, kind, one_line
from opo_cli.report.styles import Style
from opo_cli.report.tables import numeric_columns

WEB = Path(__file__).parent / "web"


def fill(template: str, script: str, data: str, styles: Sequence[Style], **fields: Any) -> str:
    """The whole file, to be written as UTF-8.

    Everything but what this package and plotly wrote passes `harmless` and the escaping of HTML. A
    content security policy forbids every request, and every script but the page's own, which it
    knows by their hashes.

    Args:
        template, script: names of files in `web/`; the template extends base.html.j2.
        data: JSON that `safe_json` made, which the script draws from.
        styles: of the arms, in their order.
        fields: what else the template names; `page` is one of them.

    Raises:
        OpoError: plotly's JavaScript is not where the package has it.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(WEB),
        autoescape=True,
        finalize=lambda value: value if isinstance(value, Markup) else harmless(str(value)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"kind": kind, "one_line": one_line}
    texts = (_web("theme.js"), _plotly(), _web("frame.js") + _web(script))
    scripts = [_inline(text) for text in texts]
    return environment.get_template(template).render(
        styles=styles,
        numeric_columns=numeric_columns,
        css=Markup(_web("page.css")),
        policy=_policy(scripts),
        scripts=[Markup(script) for script in scripts],
        data=Markup(data),
        **fields,
    )


def _web(name: str) -> str:
    return (WEB / name).read_text(encoding="utf-8")


def _plotly() -> str:
    """plotly.js of the installed package, which need not be imported for it (0.3 s)."""
    spec = find_spec("plotly")
    path = Path(spec.origin).parent / "package_data" / "plotly.min.js" if spec else None
    if path is None or not path.is_file():
        hint = "pip install --force-reinstall plotly"
        raise OpoError("the page needs plotly.min.js, which the package plotly lacks", hint)
    return path.read_text(encoding="utf-8")


def _inline(script: str) -> str:
    """A script that no HTML parser ends early, and whose hash is that of what it reads."""
    unix = script.replace("\r\n", "\n").replace("\r", "\n")
    return unix.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _policy(scripts: Sequence[str]) -> str:
    """Nothing from any host; styles may be inline, as plotly sets them."""
    digests = (b64encode(sha256(script.encode()).digest()).decode() for script in scripts)
    sources = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {sources}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
