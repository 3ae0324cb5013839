# Sourced by the scripts beside it, never run: an apt with settings, sources and lists of its own.
# Nothing on the system changes, and no root is needed. The mirror is deb.debian.org (or
# $DEBIAN_MIRROR); apt's proxy settings hold. Those who source this set $me, what they are called.

keyring=/usr/share/keyrings/debian-archive-keyring.gpg
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}

fail() {
    echo "$me: $*" >&2
    exit 1
}

# Fails if the folder $dir holds something; makes it absolute; makes $state beside it, a folder for
# the time that the script runs, and in it the settings. $1 says what $dir is for.
prepare() {
    [ ! -e "$dir" ] || rmdir "$dir" 2>/dev/null || fail "$dir holds something else than $1: remove it"
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
    # Read after the system's own settings, so that a proxy set there holds, but hooks set there do
    # not. Packages are those of x86 whatever the machine.
    cat >"$state/apt.conf" <<CONF
#clear APT::Update;
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Sandbox::User "$(id -un)";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::Retries "3";
Debug::NoLocking "true";
Dir::Cache "$state/cache";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::Etc::SourceList "$state/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State "$state";
Dir::State::Lists "$state/lists";
Dir::State::Status "$state/status";
CONF
}

private() {
    tool=$1
    shift
    "$tool" -c "$state/apt.conf" "$@"
}

# Has apt know what the suites named have, and no other; fails if one cannot be read.
know() {
    for suite in "$@"; do
        echo "deb [signed-by=$keyring] $mirror $suite main"
    done >"$state/sources.list"
    private apt-get update -qq >"$state/log" 2>&1
}

# Prints "VERSION SUITE" for each version of a package, the newest first.
versions_of() {
    private apt-cache madison "$1" | sed 's/^[^|]*| *\([^ |]*\) *| *[^ ]* \([^/]*\).*/\1 \2/'
}
