#!/usr/bin/env bash
# Lines and the longest function of each folder of C++ at given commits.
#
#   docs/results/house.sh COMMIT…       for example 7e50fe9 HEAD
#
# Tests and benchmarks are left out. A function is what ends with a "}" alone,
# not indented or by two blanks (a member), and begins at the last line above it
# that is indented like it, as clang-format lays code out.
set -euo pipefail
cd "$(git rev-parse --show-toplevel)"
(($#)) || { echo "error: docs/results/house.sh: COMMIT: found nothing, expected one or more" >&2; exit 2; }
for commit in "$@"; do
  git rev-parse -q --verify "$commit^{commit}" >/dev/null ||
    { echo "error: docs/results/house.sh: $commit: found no such commit" >&2; exit 2; }
  printf '\n%s\n\n| folder | files | lines | longest function | lines |\n|---|---:|---:|---|---:|\n' \
    "$(git log -1 --format='%h %s' "$commit")"
  git ls-tree -r --name-only "$commit" common services report |
    grep -E '\.(h|cc|cu)$' | grep -vE '_(test|benchmark)\.cc$' |
    while read -r file; do
      git show "$commit:$file" | FILE=$file awk '
        BEGIN { file = ENVIRON["FILE"]; folder = file; sub(/\/[^\/]*$/, "", folder) }
        { line[NR] = $0 }
        $0 == "}" || $0 == "  }" {
          blanks = length($0) == 1 ? "" : "  "
          for (i = NR - 1; i > 0 && line[i] !~ "^" blanks "[^ #/}]"; --i);
          if (line[i] ~ "^" blanks "(for|if|while|switch|else|do|try|struct|class|enum|union|namespace|extern) ?") next
          text = ""
          for (k = i; k < i + 5 && text !~ /[A-Za-z_~]\(/; ++k) text = text " " line[k]
          name = match(text, /[A-Za-z_0-9~:]+\(/) ? substr(text, RSTART, RLENGTH - 1) : "?"
          if (NR - i + 1 > most) { most = NR - i + 1; longest = name }
        }
        END { printf "%s\t%d\t%d\t%s\t%s\n", folder, NR, most, longest, file }'
    done |
    awk -F'\t' '
      { files[$1]++; lines[$1] += $2; all += $2; n++
        if ($3 > most[$1]) { most[$1] = $3; what[$1] = $4 " (" $5 ")" } }
      END { for (f in files) printf "| %s | %d | %d | %s | %d |\n", f, files[f], lines[f], what[f], most[f]
            printf "| ~all | %d | %d | | |\n", n, all }' | sort | sed 's/| ~all/| all/'
done
