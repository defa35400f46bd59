# Read by every recipe:
#
#     configs/recipes/NAME.sh [small]       # small: minutes on two cores, to see that it works
#
# Data comes by scripts/fetch.py; results go to runs/recipes/NAME, or to $OUT.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
name=$(basename "$0" .sh)
out=${OUT:-runs/recipes/$name}
[ ! -e "$out" ] || { echo "$out exists: move it, or set OUT"; exit 1; }
mkdir -p "$out"
case ${1:-full} in
  full) small='' ;;
  small) small=-small ;;
  *) echo "$1: say small, or nothing"; exit 1 ;;
esac
# The first word, or the second at small size.
pick() { [ -z "$small" ] && echo "$1" || echo "$2"; }
ww() { "${WARPWRIGHT:-target/release/warpwright}" "$@"; }
