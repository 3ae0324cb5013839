"""Where private/shared comes from. Every source gives 1 = private, whatever it was given.

============  =================================================================
choose        the best source at hand, and why
pageenc       the kernel's bitmap or list, in any revision of the ioctl
hypercalls    what the guest announces (KVM_HC_MAP_GPA_RANGE)
content       page contents, seen from the host; judged by ciphertext, summed
              up by contentreport
simulated     constants, patterns and scripts
============  =================================================================
"""
