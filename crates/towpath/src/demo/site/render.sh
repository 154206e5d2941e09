#!/bin/sh
# Writes the page to standard output. SOURCE_COMMIT is the commit that it is made from.
set -eu
title=$(cat page/title.txt)
sed -e "s/@TITLE@/$title/" \
    -e "s/@COMMIT@/${SOURCE_COMMIT:-unknown}/" \
    -e '/@MESSAGE@/r page/message.html' \
    -e '/@MESSAGE@/d' \
    page/template.html
