#!/bin/sh
# A board's boot command for Firmledger's `command` backend: an example to adapt, and to test with.
#
# The board's bootloader is taken to read one small file, $STATE, with the lines
#   primary=a|b  current=a|b  a=good|bad  b=good|bad  tries=N|-     ("-": not counted)
# and to count `tries` down while it boots a primary that is not confirmed. Replace `load` and
# `store` by what your bootloader has; keep every change one atomic, durable step.
set -eu
STATE=${0%/*}/state

load() { # shellcheck disable=SC1090 - written by `store` alone
    . "$STATE"
}

store() { # a new file, made durable, then put in the place of the old one
    printf 'primary=%s\ncurrent=%s\na=%s\nb=%s\ntries=%s\n' \
        "$primary" "$current" "$a" "$b" "$tries" >"$STATE.new"
    sync "$STATE.new"
    mv "$STATE.new" "$STATE"
    sync "${STATE%/*}"
}

other() { if [ "$1" = a ]; then echo b; else echo a; fi; }

slot() { case $1 in a | b) ;; *) echo "no slot $1" >&2; exit 2 ;; esac; }

load
case "${1-} $#" in
"get-primary 1") echo "$primary" ;;
"get-current 1") echo "$current" ;;
"get-state 2")
    slot "$2"
    eval "echo \$$2"
    ;;
"set-primary 2")
    slot "$2"
    primary=$2 tries=${FIRMLEDGER_ATTEMPTS:-3}
    store
    ;;
"set-state 3")
    slot "$2"
    case $3 in
    good) if [ "$primary" = "$2" ]; then tries=-; fi ;;
    bad) if [ "$primary" = "$2" ]; then primary=$(other "$2") tries=-; fi ;;
    *) echo "no state $3" >&2; exit 2 ;;
    esac
    eval "$2=$3"
    store
    ;;
*)
    echo "usage: $0 get-primary | set-primary SLOT | get-state SLOT | set-state SLOT good|bad | get-current" >&2
    exit 2
    ;;
esac
