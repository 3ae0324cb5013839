/*
 * A VMM on a real KVM with KVM_GET_PAGE_ENC_BITMAP (as posted in 2019) laid over it. Its guest, in
 * real mode, makes pages shared by writing to port 0x99, then writes them; both are looked up.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGES 64
#define PAGE 4096UL
#define CHECK(what)                                                                    \
	do {                                                                           \
		if (!(what)) {                                                         \
			fprintf(stderr, "line %d: %s (errno %d)\n", __LINE__, #what, errno); \
			_exit(99);                                                     \
		}                                                                      \
	} while (0)

struct page_enc_bitmap {
	uint64_t start_gfn, num_pages;
	void *enc_bitmap;
};
#define GET_PAGE_ENC_BITMAP _IOW(KVMIO, 0xc2, struct page_enc_bitmap)

static const unsigned char code[] = {
	0x66, 0xbb, 0x00, 0x50, 0x00, 0x00, /* mov $0x5000, %ebx */
	0x66, 0xb9, 0x02, 0x00, 0x00, 0x00, /* mov $2, %ecx */
	0x66, 0x31, 0xd2,                   /* xor %edx, %edx */
	0xe6, 0x99,                         /* out %al, $0x99 */
	0xa2, 0x00, 0x60,                   /* mov %al, 0x6000 */
	0xf4,                               /* hlt */
};

int main(void)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	CHECK(kvm >= 0);
	int vm = ioctl(kvm, KVM_CREATE_VM, 0);
	CHECK(vm >= 0);
	unsigned char *memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(memory != MAP_FAILED);
	memcpy(memory + PAGE, code, sizeof code);
	struct kvm_userspace_memory_region region = {
		.flags = KVM_MEM_LOG_DIRTY_PAGES, .memory_size = PAGES * PAGE,
		.userspace_addr = (uintptr_t)memory,
	};
	CHECK(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) == 0);
	int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	CHECK(vcpu >= 0);
	struct kvm_run *run = mmap(NULL, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0),
				   PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	CHECK(run != MAP_FAILED);
	struct kvm_sregs sregs;
	CHECK(ioctl(vcpu, KVM_GET_SREGS, &sregs) == 0);
	sregs.cs.base = sregs.cs.selector = 0;
	CHECK(ioctl(vcpu, KVM_SET_SREGS, &sregs) == 0);
	struct kvm_regs regs = { .rip = PAGE, .rflags = 2 };
	CHECK(ioctl(vcpu, KVM_SET_REGS, &regs) == 0);

	CHECK(ioctl(vcpu, KVM_RUN, 0) == 0);
	CHECK(run->exit_reason == KVM_EXIT_IO && run->io.port == 0x99);
	CHECK(ioctl(vcpu, KVM_RUN, 0) == 0);
	CHECK(run->exit_reason == KVM_EXIT_HLT);

	uint64_t dirty = 0, private = 0;
	struct kvm_dirty_log log = { .dirty_bitmap = &dirty };
	struct page_enc_bitmap enc = { .num_pages = PAGES, .enc_bitmap = &private };
	CHECK(ioctl(vm, KVM_GET_DIRTY_LOG, &log) == 0);
	CHECK(ioctl(vm, GET_PAGE_ENC_BITMAP, &enc) == 0);
	CHECK(dirty == 1ULL << 6);
	CHECK(private == ~(3ULL << 5));
	return 0;
}
