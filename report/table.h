#pragma once

#include <string>
#include <vector>

namespace atod::report {

// A table in either language: cells are text with an optional interval.
struct Cell {
  std::string text{};
  std::string small{};  // behind it, quieter: an interval, a step
  bool number = false;
};
struct Table {
  std::vector<Cell> head;
  struct Row {
    std::vector<Cell> cells{};
    bool part = false;  // belongs to the row above
  };
  std::vector<Row> rows;
};
std::string ToHtml(const Table& table);
std::string ToMarkdown(const Table& table);

}  // namespace atod::report
