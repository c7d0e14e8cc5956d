"""The style sheet of the HTML report."""

from __future__ import annotations

from typing import Final

STYLE: Final = """\
:root{--ground:#f7f8f9;--card:#fff;--ink:#1a1f25;--quiet:#56606c;--rule:#dfe3e8;--first:#1c5fc4;
--second:#b04a00;--third:#5c6570;--bad:#b3211c;--good:#11703c}
@media (prefers-color-scheme:dark){:root{--ground:#12161a;--card:#1a1f25;--ink:#e7eaee;
--quiet:#a2acb8;--rule:#2e363f;--first:#7fb2ff;--second:#f2a45c;--third:#98a3b0;--bad:#ff8b82;
--good:#63cf92}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:1120px;margin:0 auto;padding:28px 20px 48px}
h1{font-size:22px;line-height:1.25;margin:0 0 4px;font-weight:650;overflow-wrap:anywhere}
h2{font-size:15px;font-weight:650;margin:28px 0 8px}
header p{margin:0}
.quiet,dt{color:var(--quiet)}
.verdict{margin:18px 0;padding:10px 16px;background:var(--card);border:1px solid var(--rule);
border-left:4px solid var(--good);border-radius:6px}
.verdict.failed{border-left-color:var(--bad)}
.verdict p{margin:2px 0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(112px,1fr));gap:10px;
margin:0 0 18px}
.tiles div{background:var(--card);border:1px solid var(--rule);border-radius:6px;padding:8px 12px}
dt{font-size:13px}
dd{margin:0;font-size:20px;font-weight:600;font-variant-numeric:tabular-nums;white-space:nowrap}
dd small{font-size:13px;font-weight:400;color:var(--quiet)}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:14px}
figure{margin:0;background:var(--card);border:1px solid var(--rule);border-radius:6px;
padding:12px 14px;min-width:0}
figcaption{font-weight:650}
figure>svg{display:block;width:100%;height:auto}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:2px 16px;margin:2px 0 8px;padding:0;
font-size:13px;color:var(--quiet)}
.legend li{display:flex;align-items:center;gap:6px}
.legend svg{width:28px;height:8px}
.grid{stroke:var(--rule);fill:none}
.axis{stroke:var(--quiet);fill:none}
svg text{fill:var(--quiet);font-size:13px;font-variant-numeric:tabular-nums}
svg .note{fill:var(--quiet);font-size:15px;text-anchor:middle}
.line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
.first{stroke:var(--first)}.second{stroke:var(--second);stroke-dasharray:6 4}
.third{stroke:var(--third);stroke-dasharray:1.5 4}.bad{stroke:var(--bad)}
.dots{stroke:none}.dots.first{fill:var(--first)}.dots.second{fill:var(--second)}
.dots.third{fill:var(--third)}.dots.bad{fill:var(--bad)}
.scroll{overflow-x:auto;background:var(--card);border:1px solid var(--rule);border-radius:6px}
.scroll:focus-visible{outline:2px solid var(--first)}
table{border-collapse:collapse;width:100%;font-size:14px}
th,td{padding:6px 12px;text-align:left;border-top:1px solid var(--rule);vertical-align:top}
thead th{border-top:0;color:var(--quiet);font-weight:500}
thead th:empty{padding-block:0}
.number{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
td:not(:last-child){white-space:nowrap}
@media (max-width:480px){main{padding:18px 12px 32px}figure{padding:10px 8px}
svg text{font-size:16px}}
@media print{body{background:#fff}}
"""
