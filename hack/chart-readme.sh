#!/usr/bin/env bash
# Writes the table of values in the chart's README from the comments in its values.yaml.
#   chart-readme.sh            writes it
#   chart-readme.sh --check    says what would change, and fails if anything would
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../charts/secure-inference"
die() { echo "chart-readme.sh: $*" >&2; exit 1; }

# A row for each value: its path, its default, the comment above it.
table() {
  awk '
    function fail(why) { print "values.yaml, line " NR ": " why > "/dev/stderr"; failed = 1; exit 1 }
    function escape(text) { gsub(/\|/, "\\|", text); return text }
    BEGIN { print "| value | default | what it is |"; print "|---|---|---|" }
    /^ *$/ { comment = ""; next }
    /^ *# / { text = $0; sub(/^ *# /, "", text); comment = comment (comment == "" ? "" : " ") text; next }
    match($0, /^ *[A-Za-z]+:/) {
      key = $0; sub(/:.*/, "", key)
      depth = match(key, /[A-Za-z]/) - 1; sub(/^ */, "", key)
      if (depth % 2) fail("indented by " depth "; expected two spaces a level")
      path[depth / 2] = key
      value = $0; sub(/^[^:]*: */, "", value)
      if (value == "") { comment = ""; next }
      if (comment == "") fail(key " has no comment above it")
      name = path[0]; for (level = 1; level <= depth / 2; level++) name = name "." path[level]
      print "| `" name "` | `" escape(value) "` | " escape(comment) " |"
      comment = ""; next
    }
    { fail("neither a comment nor `key: default` on one line") }
    END { exit failed }
  ' values.yaml
}

rows=$(table)
begin='<!-- made by hack/chart-readme.sh -->' end='<!-- end of what is made -->'
[ "$(grep -cxF -e "$begin" -e "$end" README.md)" = 2 ] || die "README.md lacks the lines $begin and $end"
made=$(sed "\|^$begin\$|q" README.md && echo "$rows" && sed -n "\|^$end\$|,\$p" README.md)
case ${1:-} in
  "") echo "$made" >README.md ;;
  --check)
    diff -u --label README.md README.md --label "made of values.yaml" - <<<"$made" >&2 ||
      die "the README's table is not what values.yaml says; run hack/chart-readme.sh"
    ;;
  *) die "expected --check or nothing, found $1" ;;
esac
