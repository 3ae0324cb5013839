"""What the pages of a running guest hold, looked at from outside without touching absent ones.

==========  =====================================================================
reader      Contents: the pages of one guest; look, and read only what is there
regions     which mapping of the process shows which pages of a RAMBlock
process     pages by the process's page tables: pagemap, process_vm_readv
filepages   pages of a file: memfd, shared memory, hugetlbfs
zero        zero pages, counted or estimated
devices     pages that devices wrote, which KVM's dirty log never holds
hashing     the hash that says whether a page has changed
bounds      what a sample says of all pages
==========  =====================================================================
"""

from kvmenc.contents.bounds import Estimate
from kvmenc.contents.devices import DeviceEstimate, DeviceWrites, Look
from kvmenc.contents.reader import Contents
from kvmenc.contents.zero import ZeroCount, count_zero_pages

__all__ = [
    "Contents",
    "DeviceEstimate",
    "DeviceWrites",
    "Estimate",
    "Look",
    "ZeroCount",
    "count_zero_pages",
]
