#include "report/chart.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "report/html.h"

namespace atod::report {
namespace {

// The plot inside its SVG, in the SVG's units.
struct Frame {
  double width, height;
  double left = 46, right = 14, top = 24, bottom = 36;
  double x0 = 0, x1 = 1, y0 = 0, y1 = 1;  // of the data (log10 of y if log)
  bool log = false;

  double w() const { return width - left - right; }
  double h() const { return height - top - bottom; }
  double X(double x) const { return left + (x - x0) / (x1 - x0) * w(); }
  double Y(double y) const {
    const double v = log ? std::log10(y) : y;
    return top + h() - (v - y0) / (y1 - y0) * h();
  }
  bool Shows(double y) const { return std::isfinite(y) && (!log || y > 0); }
};

std::string At(double value) {
  std::string out = absl::StrFormat("%.1f", value);
  if (out.ends_with(".0")) out.resize(out.size() - 2);
  return out;
}

// Covers lines, bands and levels, and leaves some air.
void FitRange(const Chart& chart, Frame& frame) {
  double x0 = INFINITY, x1 = -INFINITY, y0 = INFINITY, y1 = -INFINITY;
  const auto add_y = [&](double y) {
    if (!frame.Shows(y)) return;
    y0 = std::min(y0, frame.log ? std::log10(y) : y);
    y1 = std::max(y1, frame.log ? std::log10(y) : y);
  };
  for (const Line& line : chart.lines) {
    for (const auto& [x, y] : line.points) {
      x0 = std::min(x0, x);
      x1 = std::max(x1, x);
      add_y(y);
    }
    for (const Line::Bound& b : line.band) {
      add_y(b.low);
      add_y(b.high);
    }
  }
  for (const Level& level : chart.levels) add_y(level.value);
  if (!(y0 <= y1)) y0 = y1 = 0;
  if (y1 - y0 < 1e-12 * std::max(1.0, std::abs(y0))) {
    const double air = frame.log ? 0.5 : std::max(0.5, 0.1 * std::abs(y0));
    y0 -= air;
    y1 += air;
  } else {
    const double air = 0.06 * (y1 - y0);
    // A series that touches or nears 0 stands on it.
    y0 = !frame.log && y0 >= 0 && y0 < 0.35 * y1 ? 0 : y0 - air;
    y1 += air;
  }
  frame.x0 = x0;
  frame.x1 = x1 > x0 ? x1 : x0 + 1;
  frame.y0 = chart.y_min.value_or(y0);
  frame.y1 = chart.y_max.has_value() ? std::min(*chart.y_max, y1) : y1;
  if (!(frame.y1 > frame.y0)) frame.y1 = frame.y0 + 1;
}

std::vector<double> LogTicks(double y0, double y1) {
  std::vector<double> out;
  const bool fine = y1 - y0 < 1.7;
  for (int e = static_cast<int>(std::floor(y0)); e <= std::ceil(y1); ++e)
    for (const double m : {1.0, 2.0, 5.0}) {
      const double at = e + std::log10(m);
      if ((m == 1 || fine) && at >= y0 - 1e-9 && at <= y1 + 1e-9)
        out.push_back(std::pow(10, e) * m);
    }
  return out;
}

std::string Axes(const Chart& chart, const Frame& f) {
  std::string out;
  const double bottom = f.top + f.h();
  const std::vector<double> ys =
      f.log ? LogTicks(f.y0, f.y1) : Ticks(f.y0, f.y1, 5);
  for (const double y : ys) {
    absl::StrAppend(&out, "<line class=\"grid\" x1=\"", At(f.left), "\" x2=\"",
                    At(f.left + f.w()), "\" y1=\"", At(f.Y(y)), "\" y2=\"",
                    At(f.Y(y)), "\"/><text x=\"", At(f.left - 7), "\" y=\"",
                    At(f.Y(y) + 4), "\" text-anchor=\"end\">", Short(y),
                    "</text>");
  }
  absl::StrAppend(&out, "<line class=\"base\" x1=\"", At(f.left), "\" x2=\"",
                  At(f.left + f.w()), "\" y1=\"", At(bottom), "\" y2=\"",
                  At(bottom), "\"/>");
  for (const double x : Ticks(f.x0, f.x1, f.width > 900 ? 12 : 7)) {
    if (x != std::floor(x)) continue;  // steps and turns are whole
    absl::StrAppend(&out, "<line class=\"base\" x1=\"", At(f.X(x)), "\" x2=\"",
                    At(f.X(x)), "\" y1=\"", At(bottom), "\" y2=\"",
                    At(bottom + 4), "\"/><text x=\"", At(f.X(x)), "\" y=\"",
                    At(bottom + 17), "\" text-anchor=\"middle\">", Short(x),
                    "</text>");
  }
  absl::StrAppend(&out, "<text class=\"axis\" x=\"0\" y=\"11\">",
                  Escape(chart.y_label),
                  "</text><text class=\"axis\" text-anchor=\"end\" x=\"",
                  At(f.left + f.w()), "\" y=\"", At(f.height - 2), "\">",
                  Escape(chart.x_label), "</text>");
  return out;
}

// "M x y L x y …", lifted where there is no value.
std::string Path(const Points& points, const Frame& f) {
  std::string out;
  bool down = false;
  for (const auto& [x, y] : points) {
    if (!f.Shows(y)) {
      down = false;
      continue;
    }
    const double v = f.log ? y : std::clamp(y, f.y0, f.y1);
    absl::StrAppend(&out, down ? "L" : "M", At(f.X(x)), " ", At(f.Y(v)));
    down = true;
  }
  return out;
}

// Classes of a line's stroke. No two of the first 32 share colour and dashes,
// and hues that some eyes confuse (0 and 5, 1 and 4, 1 and 6) differ in dashes.
std::string Stroke(int colour) {
  return absl::StrCat("l", colour % kLineColours, " d",
                      (colour + colour / kLineColours) % kLineDashes);
}

std::string Drawn(const Line& line, const Frame& f) {
  const int c = line.colour % kLineColours;
  std::string out;
  if (!line.band.empty()) {
    std::string path;
    for (const Line::Bound& b : line.band)
      absl::StrAppend(&path, path.empty() ? "M" : "L", At(f.X(b.x)), " ",
                      At(f.Y(std::clamp(b.high, f.y0, f.y1))));
    for (auto b = line.band.rbegin(); b != line.band.rend(); ++b)
      absl::StrAppend(&path, "L", At(f.X(b->x)), " ",
                      At(f.Y(std::clamp(b->low, f.y0, f.y1))));
    absl::StrAppend(&out, "<path class=\"band f", c, "\" d=\"", path, "Z\"/>");
  }
  absl::StrAppend(
      &out, "<path class=\"line ",
      line.faint ? absl::StrCat("l", c, " faint") : Stroke(line.colour),
      "\" d=\"", Path(line.points, f), "\"/>");
  if (line.markers || line.points.size() == 1) {
    for (const auto& [x, y] : line.points)
      if (f.Shows(y))
        absl::StrAppend(&out, "<circle class=\"dot f", c, "\" cx=\"",
                        At(f.X(x)), "\" cy=\"", At(f.Y(y)), "\" r=\"3.2\"/>");
  }
  return out;
}

std::string Levels(const Chart& chart, const Frame& f) {
  std::string out;
  for (const Level& level : chart.levels) {
    if (!f.Shows(level.value)) continue;
    const double y = f.Y(level.value);
    absl::StrAppend(&out, "<line class=\"level\" x1=\"", At(f.left), "\" x2=\"",
                    At(f.left + f.w()), "\" y1=\"", At(y), "\" y2=\"", At(y),
                    "\"/><text class=\"axis\" x=\"", At(f.left + f.w()),
                    "\" y=\"", At(y < f.top + 16 ? y + 14 : y - 5),
                    "\" text-anchor=\"end\">", Escape(level.label), "</text>");
  }
  return out;
}

// Whether nothing of the line can be drawn, as of zeros on a log axis.
bool Invisible(const Line& line, bool log) {
  return std::none_of(
      line.points.begin(), line.points.end(), [&](const auto& p) {
        return std::isfinite(p.second) && (!log || p.second > 0);
      });
}

bool Empty(const Chart& chart) {
  return std::all_of(
      chart.lines.begin(), chart.lines.end(),
      [&](const Line& line) { return Invisible(line, chart.log_y); });
}

std::string Legend(const Chart& chart) {
  int named = 0;
  for (const Line& line : chart.lines)
    named += !line.name.empty() && !Invisible(line, chart.log_y);
  if (named < 2) return "";
  std::string out = "<ul class=\"legend\">";
  for (const Line& line : chart.lines) {
    if (line.name.empty() || Invisible(line, chart.log_y)) continue;
    absl::StrAppend(
        &out,
        "<li><svg viewBox=\"0 0 34 10\" aria-hidden=\"true\"><path "
        "class=\"line ",
        Stroke(line.colour), "\" d=\"M1 5H33\"/>",
        line.markers
            ? absl::StrCat("<circle class=\"dot f", line.colour % kLineColours,
                           "\" cx=\"17\" cy=\"5\" r=\"3.2\"/>")
            : "",
        "</svg>", Escape(line.name), "</li>");
  }
  return out + "</ul>";
}

// What the script needs for the values under the mouse.
std::string HoverData(const Chart& chart, const Frame& f) {
  std::string lines;
  for (const Line& line : chart.lines) {
    if (line.faint || (line.name.empty() && chart.lines.size() > 1)) continue;
    std::string points;
    for (const auto& [x, y] : line.points)
      if (f.Shows(y))
        absl::StrAppend(&points, points.empty() ? "" : ",", "[", x, ",",
                        absl::StrFormat("%.5g", y), "]");
    std::string name;
    for (const char c : line.name.empty() ? chart.title : line.name)
      if (c != '"' && c != '\\' && static_cast<unsigned char>(c) >= 0x20)
        name += c;
    absl::StrAppend(&lines, lines.empty() ? "" : ",", "{\"n\":\"", name,
                    "\",\"p\":[", points, "]}");
  }
  return absl::StrCat("{\"W\":", f.width, ",\"l\":", f.left, ",\"t\":", f.top,
                      ",\"w\":", f.w(), ",\"h\":", f.h(), ",\"x0\":", f.x0,
                      ",\"x1\":", f.x1, ",\"x\":\"", chart.x_label,
                      "\",\"s\":[", lines, "]}");
}

Frame FrameOf(const Chart& chart) {
  Frame f{.width = chart.wide ? 1180.0 : 580.0,
          .height = chart.wide ? 340.0 : 264.0};
  f.log = chart.log_y;
  FitRange(chart, f);
  return f;
}

std::string Plot(const Chart& chart, const Frame& f) {
  std::string out = Axes(chart, f);
  absl::StrAppend(&out, Levels(chart, f));
  // Faint lines and bands lie behind.
  for (const bool faint : {true, false})
    for (const Line& line : chart.lines)
      if (line.faint == faint) absl::StrAppend(&out, Drawn(line, f));
  return out;
}

}  // namespace

std::vector<double> Ticks(double low, double high, int count) {
  std::vector<double> out;
  if (!(high > low)) return {low};
  const double raw = (high - low) / count;
  const double power = std::pow(10, std::floor(std::log10(raw)));
  double step = 10 * power;
  for (const double m : {1.0, 2.0, 2.5, 5.0})
    if (m * power >= raw) {
      step = m * power;
      break;
    }
  for (double i = std::ceil(low / step - 1e-9); i * step <= high + 1e-9 * step;
       ++i)
    out.push_back(i == 0 ? 0 : i * step);
  return out;
}

std::string Short(double value) {
  if (!std::isfinite(value)) return "–";
  const double size = std::abs(value);
  if (size >= 1000) return absl::StrFormat("%.0f", value);
  if (size >= 0.01 || size == 0) return absl::StrFormat("%.3g", value);
  // 2.5e-4 rather than 0.00025 or 2.5e-04.
  const int e = static_cast<int>(std::floor(std::log10(size) + 1e-12));
  return absl::StrFormat("%.3ge%d", value / std::pow(10, e), e);
}

std::string RenderChart(const Chart& chart) {
  if (Empty(chart)) return "";
  const Frame f = FrameOf(chart);
  return absl::StrCat(
      "<figure", chart.wide ? " class=\"wide\"" : "", " data-chart=\"",
      Escape(HoverData(chart, f)), "\"><h3>", Escape(chart.title), "</h3>",
      chart.note.empty()
          ? ""
          : absl::StrCat("<figcaption>", Escape(chart.note), "</figcaption>"),
      Legend(chart), "<svg class=\"plot\" viewBox=\"0 0 ", f.width, " ",
      f.height, "\" role=\"img\" aria-label=\"", Escape(chart.title), "\">",
      Plot(chart, f), "</svg></figure>\n");
}

std::string StandaloneSvg(const Chart& chart) {
  if (Empty(chart)) return "";
  Chart wide = chart;
  wide.wide = true;
  Frame f = FrameOf(wide);
  static constexpr const char* kColours[kLineColours] = {
      "#1f5fbf", "#d9590b", "#14876b", "#a8328f",
      "#7a6a00", "#6a4fd3", "#c22f3d", "#4f5b66"};
  std::string style =
      "text{font:12px system-ui,'Liberation Sans',Arial,sans-serif;fill:"
      "#5b636d}text.axis{fill:#1c2024}.grid{stroke:#eceae5}.base{stroke:"
      "#5b636d}.level{stroke:#5b636d;stroke-dasharray:5 "
      "4}.line{fill:none;stroke-width:2;stroke-linecap:round}.line.faint{"
      "stroke-width:1;opacity:."
      "38}.band{opacity:.14}.dot{stroke:#fff}";
  for (int i = 0; i < kLineColours; ++i)
    absl::StrAppend(&style, ".l", i, "{stroke:", kColours[i], "}.f", i,
                    "{fill:", kColours[i], "}");
  for (int i = 0; i < kLineDashes; ++i)
    absl::StrAppend(&style, ".d", i, "{stroke-dasharray:", kDashes[i], "}");
  std::string legend;
  double x = f.left, row = 0;
  for (const Line& line : chart.lines) {
    if (line.name.empty() || Invisible(line, chart.log_y)) continue;
    const double width = 56 + 6.6 * static_cast<double>(line.name.size());
    if (x + width > f.width) {
      x = f.left;
      ++row;
    }
    absl::StrAppend(&legend, "<path class=\"line ", Stroke(line.colour),
                    "\" d=\"M", At(x), " ", At(f.height + 14 + 18 * row),
                    "h34\"/><text x=\"", At(x + 40), "\" y=\"",
                    At(f.height + 18 + 18 * row), "\">", Escape(line.name),
                    "</text>");
    x += width;
  }
  const double height = f.height + 28 + 18 * row;
  return absl::StrCat(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 ", f.width, " ",
      height, "\" width=\"", f.width, "\" height=\"", height, "\"><style>",
      style, "</style><rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>",
      Plot(wide, f), legend, "</svg>\n");
}

std::string RenderHeat(const Heat& heat) {
  size_t turns = 0;
  for (const auto& column : heat.cells) turns = std::max(turns, column.size());
  if (turns == 0) return "";
  Frame f{.width = 580, .height = 24 + 36 + 26 + std::max(120.0, 9.0 * turns)};
  f.bottom += 26;  // the scale
  const double cw = f.w() / static_cast<double>(heat.x.size());
  const double ch = f.h() / static_cast<double>(turns);
  // One path a colour: a rectangle costs a few bytes.
  std::vector<std::string> paths(kHeatLevels);
  for (size_t i = 0; i < heat.cells.size(); ++i) {
    for (size_t k = 0; k < heat.cells[i].size(); ++k) {
      const std::optional<double>& v = heat.cells[i][k];
      if (!v.has_value() || !std::isfinite(*v)) continue;
      const double t = (*v - heat.low) / (heat.high - heat.low);
      const int level =
          std::clamp(static_cast<int>(t * kHeatLevels), 0, kHeatLevels - 1);
      absl::StrAppend(&paths[level], "M", At(f.left + i * cw), " ",
                      At(f.top + k * ch), "h", At(cw), "v", At(ch), "h-",
                      At(cw), "z");
    }
  }
  std::string out;
  for (int i = 0; i < kHeatLevels; ++i)
    if (!paths[i].empty())
      absl::StrAppend(&out, "<path class=\"q", i, "\" d=\"", paths[i], "\"/>");
  const double bottom = f.top + f.h();
  // Labels at the middle of their cells.
  const size_t every_turn = turns > 24 ? 10 : turns > 8 ? 5 : 1;
  for (size_t k = 0; k < turns; k += every_turn)
    absl::StrAppend(&out, "<text x=\"", At(f.left - 7), "\" y=\"",
                    At(f.top + (k + 0.5) * ch + 4), "\" text-anchor=\"end\">",
                    k, "</text>");
  const size_t every = std::max<size_t>(1, (heat.x.size() + 7) / 8);
  for (size_t i = 0; i < heat.x.size(); i += every)
    absl::StrAppend(&out, "<text x=\"", At(f.left + (i + 0.5) * cw), "\" y=\"",
                    At(bottom + 17), "\" text-anchor=\"middle\">",
                    Short(heat.x[i]), "</text>");
  absl::StrAppend(&out,
                  "<text class=\"axis\" x=\"0\" y=\"11\">turn</text><text "
                  "class=\"axis\" text-anchor=\"end\" x=\"",
                  At(f.left + f.w()), "\" y=\"", At(bottom + 34),
                  "\">step</text>");
  const double key = 150.0 / kHeatLevels;
  for (int i = 0; i < kHeatLevels; ++i)
    absl::StrAppend(&out, "<rect class=\"q", i, "\" x=\"",
                    At(f.left + 34 + i * key), "\" y=\"", At(bottom + 38),
                    "\" width=\"", At(key + 0.3), "\" height=\"10\"/>");
  absl::StrAppend(&out, "<text x=\"", At(f.left + 28), "\" y=\"",
                  At(bottom + 47), "\" text-anchor=\"end\">", Short(heat.low),
                  "</text><text x=\"", At(f.left + 34 + 150 + 7), "\" y=\"",
                  At(bottom + 47), "\">", Short(heat.high), "</text>");
  return absl::StrCat(
      "<figure><h3>", Escape(heat.title), "</h3>",
      heat.note.empty()
          ? ""
          : absl::StrCat("<figcaption>", Escape(heat.note), "</figcaption>"),
      "<svg viewBox=\"0 0 ", f.width, " ", f.height,
      "\" role=\"img\" aria-label=\"", Escape(heat.title), "\">", out,
      "</svg></figure>\n");
}

}  // namespace atod::report
