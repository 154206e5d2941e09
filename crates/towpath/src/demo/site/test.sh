#!/bin/sh
# The page must hold its title, its message and its commit, and no placeholder may be left.
set -eu
commit=${GITHUB_SHA:-0123456789abcdef0123456789abcdef01234567}
page=$(SOURCE_COMMIT=$commit sh render.sh)

has() {
    case $page in
        *"$1"*) echo "ok: $1" ;;
        *) echo "the page lacks: $1" >&2; exit 1 ;;
    esac
}

has "<h1>$(cat page/title.txt)</h1>"
has "$(cat page/message.html)"
has "<code>$commit</code>"
case $page in
    *@[A-Z]*@*) echo "a placeholder is left in the page" >&2; exit 1 ;;
esac
