"""A report whose every name tries to be more than a name. If one succeeds, window.pwned is set or a request is made."""

from builders import make_report, tally

from srdd.report import Report, in_order
from srdd.schema import Site

NAMES = (
    "</script><script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=2>",
    "<!--<script>",
    '"><svg onload=window.pwned=3>',
    "<a href='http://pwned.invalid/'>click</a>",
    "<b>bold</b> &lt;i&gt; %{x} @@scripts@@ $\\frac{1}{",
    '=HYPERLINK("http://pwned.invalid","x")',
    "| `cell` [link](http://pwned.invalid) @somebody #1 www.pwned.invalid",
    "\u2028\u2029\u202eright-to-left\u0000\x1b[31m",
    "__proto__",
    "x" * 3000,
    "</style><style>body{display:none}</style>",
)
SPEC = "</script><u>mxfp4</u>:even"


def hostile_report() -> Report:
    """One layer per name; the name stands for module, role, group, member, note, model and warning."""
    rows = [[tally(0.2 + 0.01 * i, 1.0 + i)] * 2 for i in range(len(NAMES))]
    report = make_report({"weight": [[row[0]] for row in rows], "output": rows}, ("mxfp4:even", SPEC), model=NAMES[0])
    sites = []
    for site in report.sites:
        name = NAMES[site.layer or 0]
        sites.append(
            Site(
                kind=site.kind,
                name=name,
                role=name,
                layer=site.layer,
                index=site.index,
                group=name,
                members=[name, name],
                notes=[name],
                formats=site.formats,
            )
        )
    model = report.model.model_copy(update={"architecture": NAMES[1], "revision": NAMES[3]})
    calibration = report.settings.calibration.model_copy(update={"source": NAMES[4]})
    settings = report.settings.model_copy(
        update={"calibration": calibration, "selection": NAMES[2], "backend": NAMES[1]}
    )
    coverage = report.coverage.model_copy(update={"uncovered": list(NAMES)})
    warnings = [f"ERROR {name}" for name in NAMES]
    changed = {"sites": sites, "model": model, "settings": settings, "coverage": coverage, "warnings": warnings}
    return in_order(report.model_copy(update=changed))
