#include "report/table.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "report/html.h"

namespace atod::report {
namespace {

// An interval, a length with its step, and a unit stay on one line each.
std::string NoBreaks(const std::string& text, bool head) {
  if (head)
    return absl::StrReplaceAll(text, {{" %", "&nbsp;%"},
                                      {" = ", "&nbsp;=&nbsp;"},
                                      {", last ", ", last&nbsp;"},
                                      {" steps", "&nbsp;steps"}});
  return absl::StrReplaceAll(text, {{", ", ",&nbsp;"},
                                    {" – ", "&nbsp;–&nbsp;"},
                                    {" turns", "&nbsp;turns"},
                                    {", step ", ",&nbsp;step&nbsp;"}});
}

}  // namespace

std::string ToHtml(const Table& table) {
  const auto cell = [](const char* tag, const Cell& c) {
    return absl::StrCat(
        "<", tag, c.number ? " class=\"n\">" : ">", Escape(c.text),
        c.small.empty() ? ""
                        : absl::StrCat(c.number ? "<br>" : " ", "<small>",
                                       NoBreaks(Escape(c.small), tag[1] == 'h'),
                                       "</small>"),
        "</", tag, ">");
  };
  // Print keeps a short table on one page.
  std::string out = absl::StrCat("<div class=\"scroll",
                                 table.rows.size() <= 15 ? " short" : "",
                                 "\"><table><thead><tr>");
  for (const Cell& c : table.head) absl::StrAppend(&out, cell("th", c));
  absl::StrAppend(&out, "</tr></thead><tbody>\n");
  for (const Table::Row& row : table.rows) {
    absl::StrAppend(&out, row.part ? "<tr class=\"part\">" : "<tr>");
    for (const Cell& c : row.cells) absl::StrAppend(&out, cell("td", c));
    absl::StrAppend(&out, "</tr>\n");
  }
  return absl::StrCat(out, "</tbody></table></div>\n");
}

std::string ToMarkdown(const Table& table) {
  const auto escaped = [](const std::string& text) {
    return absl::StrReplaceAll(text,
                               {{"|", "\\|"}, {"\n", " "}, {"<", "&lt;"}});
  };
  std::string out = "|", rule = "|";
  for (const Cell& c : table.head) {
    absl::StrAppend(
        &out, " ", escaped(c.text),
        c.small.empty() ? "" : absl::StrCat(" (", escaped(c.small), ")"), " |");
    absl::StrAppend(&rule, c.number ? "---:|" : "---|");
  }
  absl::StrAppend(&out, "\n", rule, "\n");
  for (const Table::Row& row : table.rows) {
    absl::StrAppend(&out, "|");
    for (const Cell& c : row.cells)
      absl::StrAppend(&out, " ", escaped(c.text), c.small.empty() ? "" : " ",
                      escaped(c.small), " |");
    absl::StrAppend(&out, "\n");
  }
  return out;
}

}  // namespace atod::report
