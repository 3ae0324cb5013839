#!/bin/sh
# Probe this host, and raise an alarm where it is not as a migration needs it. For cron, or a
# check of a monitoring system:
#
#     examples/probe_and_alert.sh                       # /dev/kvm of this machine
#     examples/probe_and_alert.sh --backend fake        # try the script itself
#     ALERT='mail -s kvmenc root' examples/probe_and_alert.sh
#
# What $ALERT names gets one line on its stdin; the exit status is that of `kvmenc probe`.
set -u

answer=$(COLUMNS=500 kvmenc probe --self-test "$@" 2>&1) # wide: a check to a line
status=$?

case $status in
0) exit 0 ;;
1) what='the self-test failed' ;;
2) what='the probe was called wrongly' ;;
3) what='this host has no KVM, or not for this user' ;;
4) what='the input is not good' ;;
130) exit 130 ;; # somebody pressed Ctrl-C: no alarm
*) what='the probe itself is broken' ;;
esac

if [ $status -eq 1 ]; then
    why=$(printf %s "$answer" | sed -n 's/  *failed  */: /p' | paste -s -d ';' -)
else
    why=$(printf %s "$answer" | tail -n 1)
fi
printf '%s: %s (exit status %s). %s\n' "$(uname -n)" "$what" "$status" "$why" |
    ${ALERT:-logger -p daemon.warning -t kvmenc}
exit $status
