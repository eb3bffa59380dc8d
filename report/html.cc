#include "report/html.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace atod::report {
namespace {

// Light first, dark after; print is light. Lines are told apart by more than
// hue: neighbours differ in lightness, too.
constexpr char kStyle[] = R"css(
:root {
  color-scheme: light dark;
  --page: #fbfaf8; --card: #ffffff; --ink: #1c2024; --soft: #5b636d; --rule: #e3e1dc; --grid: #eceae5;
  --accent: #1f5fbf; --good: #1a7f4b; --notice: #9a6200; --bad: #c02b2b; --wash: #f3f1ec;
  --c0: #1f5fbf; --c1: #d9590b; --c2: #14876b; --c3: #a8328f; --c4: #7a6a00; --c5: #6a4fd3; --c6: #c22f3d; --c7: #4f5b66;
  --pos: 31, 95, 191; --neg: 217, 89, 11;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #15171a; --card: #1c1f23; --ink: #e8e6e1; --soft: #a1a7ae; --rule: #30343a; --grid: #2a2e33;
    --accent: #7fb0f5; --good: #5fc491; --notice: #e2ac4d; --bad: #f08585; --wash: #23272c;
    --c0: #6fa8f7; --c1: #f5924e; --c2: #4fc3a1; --c3: #e083cc; --c4: #d3bd45; --c5: #a897f5; --c6: #f27d88; --c7: #a9b4bf;
    --pos: 111, 168, 247; --neg: 245, 146, 78;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", "Liberation Sans", Arial, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 28px 28px 80px; }
h1 { font-size: 30px; line-height: 1.2; letter-spacing: -0.015em; margin: 0 0 4px; font-weight: 650; overflow-wrap: anywhere; }
h2 { font-size: 20px; letter-spacing: -0.01em; margin: 44px 0 4px; padding-top: 14px; border-top: 2px solid var(--ink); font-weight: 650; }
h3 { font-size: 15px; margin: 0; font-weight: 650; overflow-wrap: anywhere; }
p { margin: 6px 0 12px; max-width: 104ch; }
.lead, .note, figcaption, .sub { color: var(--soft); }
.note, figcaption { font-size: 13px; }
a { color: var(--accent); text-decoration-thickness: 1px; text-underline-offset: 2px; }
code, .mono { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace; font-size: 0.9em; overflow-wrap: anywhere; }
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 16px 0 0; font-size: 14px; }
nav a { text-decoration: none; }
nav a:hover { text-decoration: underline; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(180px, 1fr)); gap: 12px; margin: 22px 0 8px; }
.tile { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 12px 16px 13px; }
.tile b { display: block; font-size: 27px; line-height: 1.25; letter-spacing: -0.02em; font-weight: 650; font-variant-numeric: tabular-nums; }
.tile > span { display: block; font-size: 13px; color: var(--soft); }
.cards { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 16px; margin: 14px 0; }
.cards > .wide { grid-column: 1 / -1; }
figure { margin: 0; background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 14px 16px 10px; position: relative; min-width: 0; }
figure svg { display: block; width: 100%; height: auto; overflow: visible; margin-top: 6px; }
figcaption { margin: 4px 0 4px; line-height: 1.4; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 16px; font-size: 13px; margin: 4px 0 0; padding: 0; list-style: none; }
.legend li { display: flex; align-items: center; gap: 7px; }
.legend svg { width: 34px; height: 10px; margin: 0; flex: none; }
svg text { fill: var(--soft); font-size: 12px; font-family: inherit; font-variant-numeric: tabular-nums; }
svg text.axis { fill: var(--ink); }
.grid { stroke: var(--grid); stroke-width: 1; shape-rendering: crispEdges; }
.base { stroke: var(--soft); stroke-width: 1; shape-rendering: crispEdges; }
.level { stroke: var(--soft); stroke-width: 1.2; stroke-dasharray: 5 4; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.line.faint { stroke-width: 1; opacity: 0.38; }
.band { stroke: none; opacity: 0.14; }
.dot { stroke: var(--card); stroke-width: 1.2; }
.l0 { stroke: var(--c0); } .l1 { stroke: var(--c1); } .l2 { stroke: var(--c2); } .l3 { stroke: var(--c3); }
.l4 { stroke: var(--c4); } .l5 { stroke: var(--c5); } .l6 { stroke: var(--c6); } .l7 { stroke: var(--c7); }
.f0 { fill: var(--c0); } .f1 { fill: var(--c1); } .f2 { fill: var(--c2); } .f3 { fill: var(--c3); }
.f4 { fill: var(--c4); } .f5 { fill: var(--c5); } .f6 { fill: var(--c6); } .f7 { fill: var(--c7); }
.cursor { stroke: var(--soft); stroke-width: 1; pointer-events: none; }
.tip { position: absolute; pointer-events: none; background: var(--ink); color: var(--page); font-size: 12px; line-height: 1.45; padding: 6px 9px;
  border-radius: 5px; white-space: nowrap; z-index: 2; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; margin: 10px 0 14px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 12px 6px 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--rule); }
thead th { font-weight: 600; font-size: 13px; color: var(--soft); border-bottom: 1px solid var(--ink); vertical-align: bottom; }
td.n, th.n { text-align: right; padding-right: 0; padding-left: 14px; white-space: nowrap; }
td.n small, .ci { color: var(--soft); font-size: 12.5px; }
td.n small, th.n small { white-space: normal; }
.ci, .scroll td:first-child { white-space: nowrap; }
td.n + td:not(.n), th.n + th:not(.n) { padding-left: 18px; }
tr.part td { color: var(--soft); }
tr.part td:first-child { padding-left: 16px; }
td.text { overflow-wrap: anywhere; }
tbody tr:last-child td { border-bottom: 1px solid var(--ink); }
.verdict { display: inline-flex; align-items: center; gap: 6px; font-weight: 600; white-space: nowrap; }
p .verdict { white-space: normal; align-items: baseline; } p .verdict i { flex: none; }
.tile .verdict { font-size: 20px; gap: 9px; } .tile .verdict i { width: 22px; height: 22px; line-height: 22px; font-size: 14px; }
.verdict i { font-style: normal; display: inline-block; width: 17px; height: 17px; line-height: 17px; border-radius: 50%; text-align: center; font-size: 11px; color: var(--card); }
.good { color: var(--good); } .good i { background: var(--good); }
.notice { color: var(--notice); } .notice i { background: var(--notice); }
.bad { color: var(--bad); } .bad i { background: var(--bad); }
.unknown { color: var(--soft); } .unknown i { background: var(--soft); }
details.episode { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; margin: 12px 0; }
details.episode > summary { cursor: pointer; padding: 11px 16px; display: flex; flex-wrap: wrap; gap: 2px 14px; align-items: baseline; }
details.episode > summary::before { content: "▸"; color: var(--soft); margin-right: -6px; }
details.episode[open] > summary::before { content: "▾"; }
details.episode > summary b { font-weight: 650; }
.turns { padding: 0 16px 8px; }
.turns td { border-bottom: 1px solid var(--grid); padding-top: 8px; padding-bottom: 8px; }
.turns td:first-child, .turns th:first-child { padding-right: 14px; padding-left: 0; }
section > h3 { margin: 22px 0 4px; }
.turns .said { color: var(--soft); font-size: 13px; display: block; max-width: 68ch; }
.turns .act { display: block; margin-top: 3px; }
.bar { display: inline-block; vertical-align: middle; height: 8px; border-radius: 2px; background: var(--accent); min-width: 1px; }
.barbox { display: inline-block; width: 52px; text-align: right; margin-right: 7px; }
.tok { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace; font-size: 12.5px; white-space: pre-wrap; border-radius: 3px; padding: 1px 1px; }
.flag { font-size: 12px; color: var(--bad); margin-left: 6px; }
.swatches { display: inline-flex; vertical-align: middle; border-radius: 3px; overflow: hidden; }
.swatches span { padding: 1px 8px; font-size: 12px; color: var(--ink); }
.diff td { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace; font-size: 12.5px; }
footer { margin-top: 56px; padding-top: 12px; border-top: 1px solid var(--rule); font-size: 13px; color: var(--soft); }
@media screen and (max-width: 820px) {
  main { padding: 18px 16px 60px; }
  .cards { grid-template-columns: minmax(0, 1fr); }
}
@page { size: A4; margin: 13mm 12mm 14mm; }
@media print {
  :root { color-scheme: light;
    --page: #fff; --card: #fff; --ink: #1c2024; --soft: #555c65; --rule: #d8d6d1; --grid: #eceae5;
    --accent: #1f5fbf; --good: #1a7f4b; --notice: #9a6200; --bad: #c02b2b;
    --c0: #1f5fbf; --c1: #d9590b; --c2: #14876b; --c3: #a8328f; --c4: #7a6a00; --c5: #6a4fd3; --c6: #c22f3d; --c7: #4f5b66;
    --pos: 31, 95, 191; --neg: 217, 89, 11; }
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
  body { font-size: 10.5px; } main { max-width: none; padding: 0; }
  h1 { font-size: 20px; } h2 { font-size: 15px; margin-top: 20px; padding-top: 8px; } h3 { font-size: 11.5px; }
  h2, h3, figcaption, .legend, .lead, thead, details.episode > summary { break-after: avoid; } .scroll + .note { break-before: avoid; }
  nav, .tip { display: none; }
  table { font-size: 9.5px; } thead th, td.n small, .ci, .note, figcaption, .legend { font-size: 9px; } .tile b { font-size: 18px; } .tile > span { font-size: 9.5px; }
  .tiles { grid-template-columns: repeat(4, 1fr); gap: 8px; } .cards { gap: 8px; } .tile { padding: 7px 10px; }
  figure { padding: 8px 10px 6px; } figure, .tile, tr, .short, details.episode > summary { break-inside: avoid; }
  thead { display: table-header-group; } tbody tr:first-child { break-after: avoid; }
  .tok, .turns .said, .diff td, .flag, .swatches span { font-size: 9px; }
  .scroll { overflow: visible; }
  th, td { padding-right: 6px; } td.n, th.n { padding-left: 7px; }
}
)css";

// Hover on a chart: a rule at the nearest step and the values there. The page
// says the same without it. Printing opens the trajectories.
constexpr char kScript[] = R"js(
for (const fig of document.querySelectorAll('figure[data-chart]')) {
  const c = JSON.parse(fig.dataset.chart), svg = fig.querySelector('svg.plot');
  const xs = [...new Set(c.s.flatMap(s => s.p.map(p => p[0])))].sort((a, b) => a - b);
  if (!xs.length) continue;
  const rule = document.createElementNS('http://www.w3.org/2000/svg', 'line');
  rule.setAttribute('class', 'cursor');
  const tip = document.createElement('div');
  tip.className = 'tip';
  const away = () => { rule.remove(); tip.remove(); };
  svg.addEventListener('mouseleave', away);
  svg.addEventListener('mousemove', e => {
    const box = svg.getBoundingClientRect(), k = c.W / box.width;
    const x = c.x0 + ((e.clientX - box.left) * k - c.l) / c.w * (c.x1 - c.x0);
    const at = xs.reduce((a, b) => Math.abs(b - x) < Math.abs(a - x) ? b : a);
    const px = c.l + (at - c.x0) / (c.x1 - c.x0 || 1) * c.w;
    rule.setAttribute('x1', px); rule.setAttribute('x2', px);
    rule.setAttribute('y1', c.t); rule.setAttribute('y2', c.t + c.h);
    svg.append(rule);
    tip.replaceChildren();
    for (const row of [[c.x, at], ...c.s.map(s => [s.n, (s.p.find(p => p[0] === at) || [])[1]])]) {
      if (row[1] === undefined) continue;
      const div = document.createElement('div');
      div.textContent = row[0] + '  ' + (+row[1].toPrecision(4));
      tip.append(div);
    }
    fig.append(tip);
    const f = fig.getBoundingClientRect(), left = box.left - f.left + px / k;
    tip.style.left = Math.max(4, Math.min(left + 10, f.width - tip.offsetWidth - 6)) + 'px';
    tip.style.top = (box.top - f.top + 14) + 'px';
  });
}
addEventListener('beforeprint', () => document.querySelectorAll('details').forEach(d => d.open = true));
)js";

struct Rgb {
  double r, g, b;
};

// The ramp of the heat maps between three colours.
std::string Ramp(const Rgb& low, const Rgb& middle, const Rgb& high) {
  std::string out;
  for (int i = 0; i < kHeatLevels; ++i) {
    const double t = 2.0 * i / (kHeatLevels - 1);
    const Rgb& a = t < 1 ? low : middle;
    const Rgb& b = t < 1 ? middle : high;
    const double u = t < 1 ? t : t - 1;
    absl::StrAppendFormat(&out, ".q%d{fill:rgb(%.0f,%.0f,%.0f)}", i,
                          a.r + u * (b.r - a.r), a.g + u * (b.g - a.g),
                          a.b + u * (b.b - a.b));
  }
  return out;
}

std::string DashStyle() {
  std::string out;
  for (int i = 0; i < kLineDashes; ++i)
    absl::StrAppend(&out, ".d", i, "{stroke-dasharray:", kDashes[i], "}");
  return out;
}

std::string HeatStyle() {
  const std::string light = Ramp({234, 241, 250}, {92, 153, 214}, {10, 38, 96});
  const std::string dark = Ramp({34, 46, 66}, {46, 118, 190}, {226, 240, 255});
  return absl::StrCat(light, "@media (prefers-color-scheme: dark){", dark,
                      "}@media print{", light, "}\n");
}

// Length of the UTF-8 sequence at text[i], 0 when there is no valid one.
size_t SequenceLength(std::string_view text, size_t i) {
  const auto byte = [&](size_t k) {
    return k < text.size() ? static_cast<unsigned char>(text[k]) : 0u;
  };
  const unsigned lead = byte(i);
  size_t n = lead < 0x80                             ? 1
             : (lead & 0xe0) == 0xc0 && lead >= 0xc2 ? 2
             : (lead & 0xf0) == 0xe0                 ? 3
             : (lead & 0xf8) == 0xf0 && lead <= 0xf4 ? 4
                                                     : 0;
  for (size_t k = 1; k < n; ++k)
    if ((byte(i + k) & 0xc0) != 0x80) return 0;
  return n;
}

}  // namespace

std::string Escape(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const size_t n = SequenceLength(text, i);
    if (n == 0) {
      out += "\xEF\xBF\xBD";
      ++i;
      continue;
    }
    const char c = text[i];
    if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else if (c == '"') {
      out += "&quot;";
    } else if (c == '\'') {
      out += "&#39;";
    } else if (n == 1 && (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)) {
      out += c == '\n' ? '\n' : ' ';
    } else {
      out += text.substr(i, n);
    }
    i += n;
  }
  return out;
}

std::string Page(std::string_view title, const std::string& body) {
  return absl::StrCat(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, "
      "initial-scale=1\">\n<title>",
      Escape(title), "</title>\n<style>", kStyle, DashStyle(), HeatStyle(),
      "</style>\n</head>\n<body>\n<main>\n", body, "</main>\n<script>", kScript,
      "</script>\n</body>\n</html>\n");
}

}  // namespace atod::report
