#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace atod::report {

using Points = std::vector<std::pair<double, double>>;

struct Line {
  std::string name{};  // empty: not in the legend
  int colour = 0;      // any number: colour and dashes of the line
  Points points{};     // ascending in x
  bool markers = false;
  bool faint = false;  // one of several behind a mean
  // x, low, high of an interval around the line.
  struct Bound {
    double x, low, high;
  };
  std::vector<Bound> band{};
};

// A level that the lines are read against.
struct Level {
  double value = 0;
  std::string label;
};

struct Chart {
  std::string title{};
  std::string note{};  // below the title
  std::string x_label = "step";
  std::string y_label{};  // with the unit
  // The axis begins at `y_min` and ends at `y_max` or where the data ends.
  std::optional<double> y_min{}, y_max{};
  bool log_y = false;
  bool wide = false;  // across the page
  std::vector<Line> lines{};
  std::vector<Level> levels{};
};

// A figure with title, legend and an SVG; empty when no line has a point.
std::string RenderChart(const Chart& chart);

// The SVG alone as a file of its own, with its colours and legend inside.
std::string StandaloneSvg(const Chart& chart);

// A matrix of means by step (x) and turn (y, from 0 at the top).
struct Heat {
  std::string title{};
  std::string note{};
  std::vector<double> x{};  // steps
  // [x][turn]; nothing where there is no sample.
  std::vector<std::vector<std::optional<double>>> cells{};
  double low = 0, high = 1;  // of the colours; values beyond are clamped
};
std::string RenderHeat(const Heat& heat);

// Round values that cover [low, high], about `count` of them.
std::vector<double> Ticks(double low, double high, int count);

// A number as an axis or a table shows it.
std::string Short(double value);

}  // namespace atod::report
