#!/bin/sh
# Puts a nats-server that is new enough into .tools/nats-server at the root of the repository. No root rights needed.
#
# It comes from the package archive that this machine already uses: its own apt sources, with the release's name
# replaced by a newer one. apt's state is kept in a temporary folder, so nothing of the machine is changed.
#
#   deploy/get-nats-server.sh                    does nothing where a good one is there already
#   USPX_NATS_SUITE=sid deploy/get-nats-server.sh   takes it from another release (default: trixie)
set -eu

NEEDED=2.10.27
SUITE=${USPX_NATS_SUITE:-trixie}
ROOT=$(cd "$(dirname "$0")/.." && pwd)
TARGET=$ROOT/.tools/nats-server

say() { printf 'get-nats-server: %s\n' "$*" >&2; }
fail() { say "$1"; [ $# -lt 2 ] || say "remedy: $2"; exit 1; }

# The version that a program says it is, or nothing.
version_of() { "$1" --version 2>/dev/null | sed -n 's/.*v\([0-9][0-9.]*\).*/\1/p' | head -n 1; }

# Whether version $1 is at least $NEEDED.
good() { [ -n "$1" ] && [ "$(printf '%s\n%s\n' "$NEEDED" "$1" | sort -V | head -n 1)" = "$NEEDED" ]; }

# Whether a usable one is named, installed already, or on the path.
have() {
    for candidate in "${USPX_NATS_SERVER:-}" "$TARGET" "$(command -v nats-server 2>/dev/null || true)"; do
        if [ -n "$candidate" ] && [ -x "$candidate" ] && good "$(version_of "$candidate")"; then
            say "$candidate is version $(version_of "$candidate"): nothing to do"
            return 0
        fi
    done
    return 1
}

# Prints the URIs (one a line) of the machine's sources that are a release's main archive, from both file forms.
# Archives of security fixes and updates are laid out differently and are not needed.
source_uris() {
    etc=$1
    for file in "$etc"/sources.list "$etc"/sources.list.d/*.list; do
        [ -f "$file" ] || continue
        sed -n 's/^[[:space:]]*deb[[:space:]]\{1,\}\(\[[^]]*\][[:space:]]*\)\{0,1\}\([^[:space:]]\{1,\}\)[[:space:]]\{1,\}\([^[:space:]]\{1,\}\)[[:space:]].*main.*/\2 \3/p' "$file"
    done
    for file in "$etc"/sources.list.d/*.sources; do
        [ -f "$file" ] || continue
        # Each stanza's (or continued line's) URIs with its first suite.
        awk 'BEGIN { RS = ""; FS = "\n" } {
            uris = ""; suite = ""; main = 0; key = ""; off = 0
            for (i = 1; i <= NF; i++) {
                if ($i ~ /^#/) continue
                if (match($i, /^[A-Za-z-]+:/)) { key = tolower(substr($i, 1, RLENGTH - 1)); rest = substr($i, RLENGTH + 1) } else rest = $i
                if (key == "uris") uris = uris " " rest
                if (key == "suites" && suite == "") { split(rest, s, " "); suite = s[1] }
                if (key == "components" && (" " rest " ") ~ / main /) main = 1
                if (key == "enabled" && rest ~ /no/) off = 1
            }
            n = split(uris, u, " ")
            if (main && !off && suite != "") for (i = 1; i <= n; i++) print u[i], suite
        }' "$file"
    done
}

# Writes a source list that holds the newer release, from the machine's own archive.
write_sources() {
    etc=$(apt-config shell DIR Dir::Etc/d 2>/dev/null | sed -n "s/^DIR='\(.*\)'$/\1/p")
    source_uris "${etc:-/etc/apt}" | while read -r uri suite; do
        case $suite in *-security | *-updates | *-backports | */*) continue ;; esac
        case $uri in *security*) continue ;; esac
        keyring=
        for k in /usr/share/keyrings/debian-archive-keyring.gpg /usr/share/keyrings/debian-archive-keyring.pgp; do
            [ -f "$k" ] && keyring="[signed-by=$k] " && break
        done
        printf 'deb %s%s %s main\n' "$keyring" "${uri%/}" "$SUITE"
    done | sort -u >"$1"
    [ -s "$1" ] || fail "no main archive found among the machine's apt sources (${etc:-/etc/apt})" \
        "install nats-server $NEEDED or newer yourself and set USPX_NATS_SERVER to its path"
}

# apt with its state in $WORK: the machine's lists, cache and locks are neither read nor written.
private_apt() {
    tool=$1
    shift
    "$tool" -q -o Dir::Etc::SourceList="$WORK/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State="$WORK/state" -o Dir::State::Lists="$WORK/state/lists" -o Dir::State::status="$WORK/status" \
        -o Dir::Cache="$WORK/cache" -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
        -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none -o Acquire::Retries=3 \
        -o APT::Update::Post-Invoke-Success::= -o Debug::NoLocking=1 "$@"
}

fetch() {
    for tool in apt-get apt-config dpkg-deb awk; do
        command -v "$tool" >/dev/null 2>&1 || fail "this machine has no $tool" \
            "install nats-server $NEEDED or newer yourself and set USPX_NATS_SERVER to its path"
    done
    mkdir -p "$WORK/state/lists/partial" "$WORK/cache/archives/partial" "$WORK/deb"
    : >"$WORK/status"
    write_sources "$WORK/sources.list"
    say "asking this machine's own archive for $SUITE"
    private_apt apt-get update >"$WORK/log" 2>&1 ||
        { cat "$WORK/log" >&2; fail "the archive's list of $SUITE could not be read" "check the network and the machine's apt sources"; }
    (cd "$WORK/deb" && private_apt apt-get download nats-server) >"$WORK/log" 2>&1 ||
        { cat "$WORK/log" >&2; fail "nats-server could not be fetched from $SUITE" "try USPX_NATS_SUITE=sid"; }
    dpkg-deb -x "$WORK"/deb/nats-server_*.deb "$WORK/unpacked"
}

# Puts it in place in one step, so that nobody finds half a program.
install_it() {
    found=$(find "$WORK/unpacked" -type f -name nats-server -perm -u+x | head -n 1)
    [ -n "$found" ] || fail "the package holds no nats-server program"
    version=$(version_of "$found")
    good "$version" || fail "the archive's nats-server is version ${version:-unknown (does it run here?)}, $NEEDED is needed" \
        "try USPX_NATS_SUITE=sid"
    mkdir -p "$ROOT/.tools"
    cp "$found" "$TARGET.$$"
    chmod 755 "$TARGET.$$"
    mv -f "$TARGET.$$" "$TARGET"
    say "$TARGET is version $version"
}

have && exit 0
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT INT TERM
fetch
install_it
