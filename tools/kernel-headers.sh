#!/bin/sh
# Unpack kernel headers of Linux 6.12 or later, for tests/uapi, into a folder of their own:
#
#   tools/kernel-headers.sh [DIR [SUITE...]]
#
# DIR is .cache/kernel-headers unless given. They come from Debian's linux-libc-dev, from the first
# SUITE that has them, by an apt with private lists and sources: nothing on the system changes, and
# no root is needed. The mirror is deb.debian.org (or $DEBIAN_MIRROR); apt's proxy settings hold.
set -eu

package=linux-libc-dev
wanted=6.12
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}

dir=${1:-.cache/kernel-headers}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- bookworm-backports trixie sid

fail() {
    echo "kernel-headers: $*" >&2
    exit 1
}

[ ! -e "$dir/usr/include/linux/kvm.h" ] || exit 0
[ ! -e "$dir" ] || rmdir "$dir" 2>/dev/null ||
    fail "$dir holds something else than kernel headers: remove it"
for tool in apt-get apt-cache dpkg dpkg-deb; do
    command -v "$tool" >/dev/null || fail "needs $tool, which Debian and Ubuntu have"
done
[ -r "$keyring" ] || fail "needs $keyring: install the package debian-archive-keyring"

mkdir -p "$(dirname "$dir")"
dir=$(cd "$(dirname "$dir")" && pwd)/$(basename "$dir")
state=$(mktemp -d "$dir.XXXXXX")
trap 'rm -rf "$state"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
mkdir -p "$state/lists/partial" "$state/cache/archives/partial" "$state/deb"
: >"$state/status"

# Read after the system's own settings, so that a proxy set there holds, but hooks set there do not.
# The x86 headers are wanted whatever the machine; layouts are those of any 64-bit Linux.
cat >"$state/apt.conf" <<CONF
#clear APT::Update;
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Sandbox::User "$(id -un)";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::Retries "3";
Dir::Cache "$state/cache";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::Etc::SourceList "$state/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State::Lists "$state/lists";
Dir::State::Status "$state/status";
CONF

private() {
    tool=$1
    shift
    "$tool" -c "$state/apt.conf" "$@"
}

# Prints the suite's version of the package; fails if the suite cannot be read.
version_in() {
    echo "deb [signed-by=$keyring] $mirror $1 main" >"$state/sources.list"
    private apt-get update -qq >"$state/log" 2>&1 || return 1
    private apt-cache madison "$package" | cut -d'|' -f2 | tr -d ' ' | head -n 1
}

seen=
for suite in "$@"; do
    version=$(version_in "$suite") || version=unreachable
    if [ "$version" != unreachable ] && dpkg --compare-versions "${version:-0}" ge "$wanted"; then
        (cd "$state/deb" && private apt-get download -qq "$package=$version") >"$state/log" 2>&1 ||
            fail "download of $package $version failed: $(tail -n 1 "$state/log")"
        dpkg-deb -x "$state/deb/$package"_*.deb "$state/root"
        mv "$state/root" "$dir"
        echo "kernel-headers: $package $version ($suite) in $dir"
        exit 0
    fi
    seen="$seen${seen:+, }$suite: ${version:-none}"
done
fail "no $package $wanted or later on $mirror ($seen)"
