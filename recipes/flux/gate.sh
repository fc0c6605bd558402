#!/usr/bin/env bash
# bash recipes/flux/gate.sh [NAME,NAME,...|all] [key=value ...]
# Make 200 pairs with FLUX.1-dev, and train each named variant of the method on them for 1,000 steps at 512 pixels.
# Without names it trains only "paper". Run it again to resume. Validation data is needed to compare the variants:
# bash recipes/flux/gate.sh all "validation_pairs=['my/pairs']"
# docs/training.md has the hours, and what to decide from the scores.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
all="paper no_ftd fresh_noise no_adl lpips t_l_015 t_l_035 t_l_050 guidance_1"
changes() {
  case $1 in
    paper) ;;
    no_ftd) echo ftd_weight=0 ;;            # reconstruction only
    fresh_noise) echo eps_source=fresh ;;   # new noise instead of the teacher's own
    no_adl) echo adl_weight=0 ;;
    lpips) echo tv_gamma=0 ;;               # LPIPS instead of TV-LPIPS
    t_l_015) echo t_l=0.15 ;;
    t_l_035) echo t_l=0.35 ;;
    t_l_050) echo t_l=0.5 ;;
    guidance_1) echo guidance=1.0 ;;        # the student's guidance; the recipe has 3.5
    *) echo "unknown variant '$1'; choose from: $all, or all" >&2; return 1 ;;
  esac
}
names=paper
if [[ $# -gt 0 && $1 != *=* ]]; then names=$1; shift; fi
if [[ $names == all ]]; then names=$all; fi
names=${names//,/ }
for name in $names; do changes "$name" > /dev/null; done
if [[ ${DRY_RUN:-} ]]; then
  for name in $names; do echo "$name $(changes "$name")"; done
  exit
fi
prompt="a sharp photograph, rich in natural detail"
[[ -d runs/flux/prompt ]] || fluxsr prompt "$prompt" --model black-forest-labs/FLUX.1-dev -o runs/flux/prompt
fluxsr pairs generate --recipe recipes/flux/pairs.yaml --out runs/flux/gate/pairs count=200
fluxsr pairs screen runs/flux/gate/pairs
for name in $names; do
  # shellcheck disable=SC2046  # a variant may change several options
  fluxsr train distill --recipe recipes/flux/gate.yaml --out "runs/flux/gate/$name" $(changes "$name") "$@"
done
