# Shared by the scripts in this folder; sourced, not run. Messages go to stderr: stdout belongs to the programs.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Distributions keep tools like `ip` where an ordinary user's PATH does not look.
PATH=$PATH:${CARGO_HOME:-${HOME:-}/.cargo}/bin:/usr/sbin:/sbin

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

die() {
  say "$@"
  exit 1
}

# rustup's commands look for their toolchain under $HOME. Where HOME is another one (a build account, a clean room), the
# toolchain that lies beside the commands is the one that is meant.
find_toolchain() {
  local beside
  [ -z "${RUSTUP_HOME:-}" ] || return 0
  command -v rustc >/dev/null || return 0
  rustc --version >/dev/null 2>&1 && return 0
  beside=$(dirname "$(dirname "$(dirname "$(command -v rustc)")")")/.rustup
  if [ -d "$beside" ]; then
    export RUSTUP_HOME=$beside
    say "using the Rust toolchain of $beside"
  fi
}

# install_packages REASON PACKAGE… : the one place that needs root, and only when something is missing.
install_packages() {
  local reason=$1 become=()
  shift
  command -v apt-get >/dev/null ||
    die "missing $reason: install what your distribution has for the Debian packages: $*"
  if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
      become=(sudo)
    else
      die "missing $reason. Run this as root, then start again:  apt-get install --no-install-recommends $*"
    fi
  fi
  say "missing $reason; installing with ${become[*]:+sudo }apt-get: $*"
  local get=("${become[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -y --no-install-recommends)
  # The package lists of a fresh machine are empty or out of date: fetch them only when the first try fails.
  "${get[@]}" install "$@" >&2 || { "${get[@]}" update >&2 && "${get[@]}" install "$@" >&2; } ||
    die "apt-get could not install: $*"
}

# need_commands REASON COMMAND=PACKAGE… : installs the packages of those commands that are not there.
need_commands() {
  local reason=$1 pair missing=()
  shift
  for pair in "$@"; do
    command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
  done
  [ ${#missing[@]} -eq 0 ] || install_packages "$reason" "${missing[@]}"
}

# build_release CARGO_ARGUMENT… : builds from the checkout (cargo reads .cargo/config.toml from where it stands) and sets
# `target`, without changing the caller's folder, against which his own paths are meant.
build_release() {
  # shellcheck disable=SC2034 # read by the sourcing script
  target=$(cd "$root" && cargo metadata --format-version 1 --no-deps --offline 2>/dev/null |
    sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
  say 'building (some minutes the first time)'
  (cd "$root" && cargo build --release "$@") >&2
}
