/*
 * Asks KVM, by structs and numbers of the kernel's own headers. "asker WHAT SECRET" does one thing
 * and exits 0 if it went as it should; what must not get into a recording is SECRET, 16 bytes.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGES 256
#define PAGE 4096UL
#define CHECK(what)                                                                          \
	do {                                                                                 \
		if (!(what)) {                                                               \
			fprintf(stderr, "line %d: %s (errno %d)\n", __LINE__, #what, errno); \
			_exit(99);                                                           \
		}                                                                            \
	} while (0)

static const char *secret;
static int kvm, vm, vcpu;
static struct kvm_run *run;
static unsigned char *memory;
static uint64_t bitmap[PAGES / 64];

/* Real mode, from 0x1000: the secret goes byte by byte to port 16, then to MMIO; writes; halts. */
static const unsigned char guest[] = {
	0xbe, 0x00, 0x20,	      /* mov $0x2000, %si */
	0xb9, 0x10, 0x00,	      /* mov $16, %cx */
	0xf3, 0x6e,		      /* rep outsb, to %dx = 16 */
	0xb8, 0x00, 0xf0, 0x8e, 0xc0, /* mov $0xf000, %ax; mov %ax, %es */
	0x66, 0xa1, 0x00, 0x20,	      /* mov 0x2000, %eax */
	0x26, 0x66, 0xa3, 0x00, 0x00, /* mov %eax, %es:0 = 0xf0000, where no memory is */
	0xa3, 0x00, 0x50,	      /* mov %ax, 0x5000 */
	0xf4,			      /* hlt */
};

static void make(void)
{
	struct kvm_userspace_memory_region region = {
		.flags = KVM_MEM_LOG_DIRTY_PAGES, .memory_size = PAGES * PAGE / 2};
	struct kvm_sregs sregs;
	struct kvm_regs regs = {.rip = 0x1000, .rdx = 16, .rflags = 2};
	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	CHECK(kvm >= 0);
	CHECK(ioctl(kvm, KVM_GET_API_VERSION, 0) == 12);
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	CHECK(vm >= 0);
	memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(memory != MAP_FAILED);
	region.userspace_addr = (uintptr_t)memory;
	CHECK(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) == 0);
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	CHECK(vcpu >= 0);
	run = mmap(NULL, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED,
		   vcpu, 0);
	CHECK(run != MAP_FAILED);
	CHECK(ioctl(vcpu, KVM_GET_SREGS, &sregs) == 0);
	sregs.cs.base = sregs.cs.selector = 0;
	CHECK(ioctl(vcpu, KVM_SET_SREGS, &sregs) == 0);
	CHECK(ioctl(vcpu, KVM_SET_REGS, &regs) == 0);
	memcpy(memory + 0x1000, guest, sizeof(guest));
	memcpy(memory + 0x2000, secret, 16);
}

static void dirty_log(void)
{
	struct kvm_dirty_log log = {.dirty_bitmap = bitmap};
	for (unsigned i = 0; i < sizeof(bitmap); i += 16)
		memcpy((char *)bitmap + i, secret, 16);
	CHECK(ioctl(vm, KVM_GET_DIRTY_LOG, &log) == 0);
}

static void to_halt(void)
{
	do
		CHECK(ioctl(vcpu, KVM_RUN, 0) == 0);
	while (run->exit_reason == KVM_EXIT_IO || run->exit_reason == KVM_EXIT_MMIO);
	CHECK(run->exit_reason == KVM_EXIT_HLT);
}

/* A guest that writes one page, its log read, all closed. */
static void guest_once(void)
{
	make();
	to_halt();
	dirty_log();
	CHECK(bitmap[0] == 1 << 5);
	munmap(run, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0));
	CHECK(close(vcpu) == 0 && close(vm) == 0 && close(kvm) == 0);
}

/* What kvmenc knows no struct of: a vCPU's vector registers, which hold keys. */
static void vector_registers(void)
{
	struct kvm_fpu fpu;
	make();
	CHECK(ioctl(vcpu, KVM_GET_FPU, &fpu) == 0);
	for (int i = 0; i < 16; i++)
		memcpy(fpu.xmm[i], secret, 16);
	CHECK(ioctl(vcpu, KVM_SET_FPU, &fpu) == 0);
	CHECK(ioctl(vcpu, KVM_GET_FPU, &fpu) == 0 && !memcmp(fpu.xmm[3], secret, 16));
}

/* What was a vCPU's mapping is memory with the secret by now. */
static void mapped_over(void)
{
	make();
	void *other = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	CHECK(other != MAP_FAILED);
	other = mmap(other, 3 * PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	for (unsigned i = 0; i < 3 * PAGE; i += 16)
		memcpy((char *)other + i, secret, 16);
	to_halt();
}

/* Duplicates of all kinds: each is closed once its last is, and not before. */
static void duplicates(void)
{
	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	CHECK(kvm >= 0);
	int high = fcntl(kvm, F_DUPFD_CLOEXEC, 100);
	CHECK(high >= 100 && close(kvm) == 0);
	CHECK(ioctl(kvm, KVM_GET_API_VERSION, 0) == -1 && errno == EBADF);
	CHECK(ioctl(high, KVM_GET_API_VERSION, 0) == 12);
	CHECK(dup2(high, 50) == 50 && dup3(high, 51, O_CLOEXEC) == 51 && close(high) == 0);
	CHECK(ioctl(50, KVM_CHECK_EXTENSION, KVM_CAP_USER_MEMORY) == 1);
	vm = ioctl(51, KVM_CREATE_VM, 0);
	CHECK(vm >= 0 && dup2(0, vm) == vm); /* closes the VM */
	CHECK(ioctl(dup(50), KVM_CHECK_EXTENSION, KVM_CAP_IRQCHIP) == 1);
	CHECK(close_range(3, ~0U, 0) == 0);
}

/* A child asks by what it has inherited; what it closes is still its parent's. */
static void child(void)
{
	int status;
	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	CHECK(kvm >= 0);
	pid_t pid = fork();
	if (pid == 0) {
		CHECK(ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_USER_MEMORY) == 1);
		close(kvm);
		_exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	CHECK(ioctl(kvm, KVM_GET_API_VERSION, 0) == 12 && close(kvm) == 0);
}

/* Another program keeps what is not close-on-exec. */
static void executes(const char *self)
{
	CHECK(open("/dev/kvm", O_RDWR) == 3);
	execl(self, self, "executed", secret, NULL);
}

static void executed(void)
{
	CHECK(ioctl(3, KVM_GET_API_VERSION, 0) == 12 && close(3) == 0);
	CHECK(ioctl(3, KVM_GET_API_VERSION, 0) == -1 && errno == EBADF);
}

static void *ask_much(void *unused)
{
	(void)unused;
	for (int i = 0; i < 100; i++)
		CHECK(ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_USER_MEMORY) == 1);
	return NULL;
}

static void threads(void)
{
	pthread_t thread[4];
	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	for (int i = 0; i < 4; i++)
		CHECK(pthread_create(&thread[i], NULL, ask_much, NULL) == 0);
	for (int i = 0; i < 4; i++)
		CHECK(pthread_join(thread[i], NULL) == 0);
}

static volatile int handled;

static void handle(int number)
{
	(void)number;
	handled++;
}

/* Signals that come while a guest that never stops runs: KVM_RUN ends with EINTR. */
static void signals(void)
{
	struct sigaction action = {.sa_handler = handle};
	make();
	memcpy(memory + 0x1000, "\xeb\xfe", 2); /* jmp . */
	CHECK(sigaction(SIGALRM, &action, NULL) == 0);
	for (int i = 1; i <= 3; i++) {
		ualarm(20000, 0);
		CHECK(ioctl(vcpu, KVM_RUN, 0) == -1 && errno == EINTR && handled == i);
	}
}

int main(int argc, char **argv)
{
	CHECK(argc == 3 && strlen(argv[2]) == 16);
	const char *what = argv[1];
	secret = argv[2];
	if (!strcmp(what, "guest"))
		guest_once();
	else if (!strcmp(what, "vector-registers"))
		vector_registers();
	else if (!strcmp(what, "mapped-over"))
		mapped_over();
	else if (!strcmp(what, "duplicates"))
		duplicates();
	else if (!strcmp(what, "child"))
		child();
	else if (!strcmp(what, "executes"))
		executes(argv[0]);
	else if (!strcmp(what, "executed"))
		executed();
	else if (!strcmp(what, "threads"))
		threads();
	else if (!strcmp(what, "signals"))
		signals();
	else
		return 98;
	return 0;
}
