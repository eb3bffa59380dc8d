#include "report/episodes.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "report/html.h"

namespace atod::report {
namespace {

constexpr size_t kObservationBytes = 360;

std::string Shortened(const std::string& text) {
  if (text.size() <= kObservationBytes) return Escape(text);
  return Escape(text.substr(0, kObservationBytes)) + " …";
}

// Blue pushes a token up, orange down; full colour is the largest advantage of
// the trajectory.
std::string Token(const ShownToken& token, double largest) {
  const double share =
      largest > 0 ? std::min(1.0, std::abs(token.advantage) / largest) : 0;
  std::string text = token.text;
  if (text.empty()) text = absl::StrFormat("%+.2f", token.advantage);
  // A token of white space alone would be invisible.
  if (text.find_first_not_of(" \n\t") == std::string::npos)
    text = text == "\n" ? "↵" : "␣";
  return absl::StrFormat(
      "<span class=\"tok\" style=\"background:rgba(var(--%s),%.2f)\" "
      "title=\"%+.4g\">%s</span>",
      token.advantage < 0 ? "neg" : "pos", 0.62 * std::sqrt(share),
      token.advantage, Escape(text));
}

std::string NumberCell(double value) {
  return absl::StrFormat("<td class=\"n\">%.3f</td>", value);
}

// The mean advantage of the turn's tokens.
std::string MeanAdvantage(const ShownTurn& turn) {
  if (turn.tokens.empty()) return "<td class=\"n\">–</td>";
  double sum = 0;
  for (const ShownToken& token : turn.tokens) sum += token.advantage;
  return absl::StrFormat("<td class=\"n\">%+.3f</td>",
                         sum / static_cast<double>(turn.tokens.size()));
}

// Without a teacher there is no d, and w says nothing.
std::string Turn(const ShownTurn& turn, double largest, bool teacher) {
  std::string out = absl::StrCat("<tr><td class=\"n\">", turn.index,
                                 "</td><td class=\"text\">");
  if (!turn.observation.empty())
    absl::StrAppend(&out, "<span class=\"said\">", Shortened(turn.observation),
                    "</span>");
  absl::StrAppend(&out, "<span class=\"act\">");
  if (turn.weighed && !turn.tokens.empty()) {
    for (const ShownToken& token : turn.tokens)
      absl::StrAppend(&out, Token(token, largest));
  } else {
    absl::StrAppend(&out, "<code>", Shortened(turn.text), "</code>");
  }
  if (!turn.trainable)
    out += "<span class=\"flag\">replayed, no loss</span>";
  else if (!turn.valid)
    out += "<span class=\"flag\">not well-formed</span>";
  else if (!turn.admissible)
    out += "<span class=\"flag\">not offered here</span>";
  // The action only where the text does not say it.
  if (turn.executed_differs())
    absl::StrAppend(&out,
                    "<span class=\"said\">executed: ", Shortened(turn.action),
                    "</span>");
  absl::StrAppend(&out, "</span></td>");
  if (!turn.weighed) {
    for (int i = 0; i < (teacher ? 4 : 2); ++i) out += "<td class=\"n\">–</td>";
    return out + "</tr>\n";
  }
  if (teacher) out += NumberCell(turn.d);
  out += NumberCell(turn.h);
  if (teacher)
    absl::StrAppendFormat(
        &out,
        "<td class=\"n\"><span class=\"barbox\"><span class=\"bar\" "
        "style=\"width:%.0fpx\"></span></span>%.3f</td>",
        46 * std::clamp(turn.w, 0.0, 1.0), turn.w);
  return absl::StrCat(out, MeanAdvantage(turn), "</tr>\n");
}

std::string Episode(const ShownTrajectory& t, bool open, bool teacher) {
  double largest = 0;
  for (const ShownTurn& turn : t.turns)
    for (const ShownToken& token : turn.tokens)
      largest = std::max(largest, std::abs(token.advantage));
  std::string out = absl::StrFormat(
      "<details class=\"episode\"%s><summary><b>Step %d, %s</b><span "
      "class=\"sub\">%s · trajectory <code>%s</code> · %d turns · reward %g · "
      "GRPO advantage %+.3f · largest |A| %.3g</span></summary>\n"
      "<div class=\"turns scroll\"><table><thead><tr><th "
      "class=\"n\">turn</th><th>what it saw, then what it wrote</th>"
      "%s<th class=\"n\">h</th>%s<th class=\"n\">mean A</th></tr></thead>"
      "<tbody>\n",
      open ? " open" : "", t.step, t.success ? "solved" : "not solved",
      Escape(t.category.empty() ? t.task : t.category), Escape(t.id),
      t.turns.size(), t.reward, t.grpo_advantage, largest,
      teacher ? "<th class=\"n\">d</th>" : "",
      teacher ? "<th class=\"n\">w</th>" : "");
  for (const ShownTurn& turn : t.turns)
    absl::StrAppend(&out, Turn(turn, largest, teacher));
  return absl::StrCat(out, "</tbody></table></div></details>\n");
}

}  // namespace

std::string RenderEpisodes(const RunData& run) {
  if (run.trajectories.empty()) return "";
  const bool teacher = run.has_teacher();
  std::string out = absl::StrCat(
      "<p class=\"note\">Of the first, the middle and the last recorded step: "
      "one solved and one unsolved trajectory where there is one",
      teacher ? ", those whose turns differ most in d" : "",
      ". Tokens: <span class=\"swatches\"><span "
      "style=\"background:rgba(var(--neg),.62)\">A &lt; 0, made rarer</span>"
      "<span>0</span><span style=\"background:rgba(var(--pos),.62)\">A &gt; 0, "
      "made likelier</span></span>; the number is under the mouse, the mean "
      "over the turn's tokens in the last column.</p>\n");
  bool open = true;
  for (const ShownTrajectory& t : run.trajectories) {
    absl::StrAppend(&out, Episode(t, open, teacher));
    open = false;
  }
  return out;
}

}  // namespace atod::report
