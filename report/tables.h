#pragma once

#include <map>
#include <string>
#include <vector>

#include "report/run_data.h"
#include "report/summary.h"
#include "report/table.h"

namespace atod::report {

// What all parts of a report are made from.
struct Material {
  const std::vector<RunData>* runs;
  std::vector<RunSummary> summaries;
  std::vector<Group> groups;
};
Material MaterialOf(const std::vector<RunData>& runs);

// The paper's Table 1 with its missing columns; one row a run, or a group.
enum class SuccessRows { kRuns, kGroups };
Table SuccessTable(const Material& material, SuccessRows rows);
// What its cells mean, in plain text, as of the notes below; first what is
// special about rows of several seeds.
std::string GroupNote();
std::string SuccessNote(const Material& material);
// Whether any group has several runs.
bool HasSeveralSeeds(const Material& material);
// What keeps the rows from being compared; empty when nothing does.
std::string Incomparable(const Material& material);

// Paired by game: every group against the first, or all pairs of up to four.
Table PairedTable(const Material& material);
std::string PairedNote(const Material& material);

// Games outside training: evals/POLICY-SPLIT.jsonl of deploy/up.sh, with the
// paired difference to the teacher.
Table HeldOutTable(const RunData& run);
std::string HeldOutNote(const RunData& run);
// Success by task type of every policy, on the split whose rooms are unseen.
Table HeldOutCategories(const RunData& run);

// The same of several runs: the last checkpoint at T = 0.4 (trained-last) and
// T = 1 (trained-last-t1) with the first run's untrained student and teacher.
// Intervals over games, and over seeds in a row of several.
Table HeldOutComparison(const Material& material);
std::string HeldOutComparisonNote();

// Success by task type: before, at the best and at the last evaluation.
Table CategoryTable(const RunData& run, const RunSummary& summary);

// Keys whose values differ between groups; or, of one group, those that differ
// from the defaults.
Table ConfigTable(const Material& material,
                  const std::map<std::string, std::string>& defaults);

// Where the numbers of each run come from.
Table SourceTable(const Material& material);

}  // namespace atod::report
