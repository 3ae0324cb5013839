/*
 * A small VMM that knows nothing of what answers it: structs and numbers come from the kernel's
 * own headers. "vmm WHAT" does one thing, checks it, and exits 0 if it was as on a real KVM.
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
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGES 4096
#define PAGE 4096UL
#define CHECK(what)                                                                    \
	do {                                                                           \
		if (!(what)) {                                                         \
			fprintf(stderr, "line %d: %s (errno %d)\n", __LINE__, #what, errno); \
			_exit(99);                                                     \
		}                                                                      \
	} while (0)

struct vm {
	int kvm, fd, vcpu[2];
	struct kvm_run *run[2];
	unsigned char *memory;
};

static unsigned long long bitmap[PAGES / 64];

static struct vm create(int vcpus)
{
	struct vm vm;
	vm.kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	CHECK(vm.kvm >= 0);
	CHECK(ioctl(vm.kvm, KVM_GET_API_VERSION, 0) == 12);
	vm.fd = ioctl(vm.kvm, KVM_CREATE_VM, 0);
	CHECK(vm.fd >= 0);
	CHECK(fcntl(vm.fd, F_GETFD) == FD_CLOEXEC);
	vm.memory = mmap(NULL, (PAGES + 2) * PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(vm.memory != MAP_FAILED);
	vm.memory += PAGE; /* a page before and one behind are no guest's */
	struct kvm_userspace_memory_region region = {
		.slot = 0, .flags = KVM_MEM_LOG_DIRTY_PAGES, .guest_phys_addr = 0x100000,
		.memory_size = PAGES * PAGE, .userspace_addr = (uintptr_t)vm.memory,
	};
	CHECK(ioctl(vm.fd, KVM_SET_USER_MEMORY_REGION, &region) == 0);
	int size = ioctl(vm.kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	for (int i = 0; i < vcpus; i++) {
		vm.vcpu[i] = ioctl(vm.fd, KVM_CREATE_VCPU, i);
		CHECK(vm.vcpu[i] >= 0);
		vm.run[i] = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vm.vcpu[i], 0);
		CHECK(vm.run[i] != MAP_FAILED);
	}
	return vm;
}

static void run(struct vm *vm, int which)
{
	int result;
	do
		result = ioctl(vm->vcpu[which], KVM_RUN, 0);
	while (result < 0 && errno == EINTR);
	CHECK(result == 0);
	CHECK(vm->run[which]->exit_reason == KVM_EXIT_HLT);
}

static void get_log(int fd)
{
	struct kvm_dirty_log log = { .slot = 0, .dirty_bitmap = bitmap };
	memset(bitmap, 0xff, sizeof bitmap);
	CHECK(ioctl(fd, KVM_GET_DIRTY_LOG, &log) == 0);
}

static int is_dirty(int page)
{
	return bitmap[page / 64] >> page % 64 & 1;
}

static uint64_t word(struct vm *vm, int page)
{
	uint64_t value;
	memcpy(&value, vm->memory + page * PAGE, sizeof value);
	return value;
}

/* Of a VM whose log was never read: dirty pages were written, all else is as it was. */
static int check_all(struct vm *vm)
{
	int dirty = 0;
	for (int page = -1; page <= PAGES; page++) {
		int inside = page >= 0 && page < PAGES;
		int written = inside && is_dirty(page);
		for (unsigned long i = 0; i < PAGE; i++)
			CHECK((written && i < 8) || vm->memory[page * (long)PAGE + i] == 0);
		CHECK(!written || word(vm, page) != 0);
		dirty += written;
	}
	return dirty;
}

static void whole_life(void)
{
	struct vm vm = create(1);
	run(&vm, 0);
	run(&vm, 0);
	get_log(vm.fd);
	int dirty = check_all(&vm);
	CHECK(dirty > 100 && dirty <= 128);
	get_log(vm.fd);
	for (int page = 0; page < PAGES; page++)
		CHECK(!is_dirty(page));
	printf("%d pages\n", dirty);
}

/* What a real KVM does too: its guest would run what is in the memory. */
static void without_guest(void)
{
	struct vm vm = create(2);
	struct kvm_regs regs = { 0 };
	CHECK(ioctl(vm.fd, KVM_CREATE_VCPU, 1) == -1 && errno == EEXIST);
	CHECK(ioctl(vm.vcpu[1], KVM_RUN, 1) == -1 && errno == EINVAL);
	CHECK(ioctl(vm.vcpu[1], KVM_GET_REGS, &regs) == 0 && regs.rip == 0xfff0);
	CHECK(ioctl(vm.fd, KVM_GET_DIRTY_LOG, NULL) == -1 && errno == EFAULT);
	get_log(vm.fd);
	CHECK(check_all(&vm) == 0);
	if (fork() == 0) {
		CHECK(ioctl(vm.fd, KVM_CHECK_EXTENSION, 10) == -1 && errno == EIO);
		CHECK(ioctl(vm.vcpu[0], KVM_RUN, 0) == -1 && errno == EIO);
		CHECK(ioctl(vm.kvm, KVM_CHECK_EXTENSION, 10) > 0);
		_exit(0);
	}
	int status;
	CHECK(wait(&status) > 0 && status == 0);
	vm.run[0]->immediate_exit = 1;
	CHECK(ioctl(vm.vcpu[0], KVM_RUN, 0) == -1 && errno == EINTR);
	close(vm.fd);
	CHECK(ioctl(vm.fd, KVM_CHECK_EXTENSION, 10) == -1 && errno == EBADF);
	CHECK(ioctl(vm.vcpu[0], KVM_GET_REGS, &regs) == 0);
	struct rlimit none = { 3, 4096 };
	CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
	CHECK(open("/dev/kvm", O_RDWR) == -1 && errno == EMFILE);
	none.rlim_cur = 1024;
	CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
	close(vm.kvm);
	CHECK(creat("/dev/kvm", 0600) == vm.kvm);
	CHECK(ioctl(vm.kvm, KVM_GET_API_VERSION, 0) == 12);
}

static void forks(void)
{
	struct vm vm = create(1);
	fflush(stdout);
	pid_t child = fork();
	if (child == 0) {
		CHECK(ioctl(vm.fd, KVM_CHECK_EXTENSION, 10) == -1 && errno == EIO);
		CHECK(ioctl(vm.vcpu[0], KVM_RUN, 0) == -1 && errno == EIO);
		CHECK(ioctl(vm.kvm, KVM_CHECK_EXTENSION, 10) > 0);
		whole_life();
		exit(0);
	}
	int status;
	CHECK(waitpid(child, &status, 0) == child && status == 0);
	run(&vm, 0);
	get_log(vm.fd);
	CHECK(check_all(&vm) > 50);
}

/* A VM belongs to an address space: what is executed has another, under the same pid. */
static void executes(char *self)
{
	struct vm vm = create(1);
	char *wrong[] = { "/no/such/program", NULL };
	CHECK(execv(wrong[0], wrong) == -1 && errno == ENOENT);
	run(&vm, 0);
	char number[16];
	snprintf(number, sizeof number, "%d", dup(vm.fd));
	char *args[] = { self, "executed", number, NULL };
	execv(self, args);
	CHECK(0);
}

static void executed(int fd)
{
	CHECK(ioctl(fd, KVM_CHECK_EXTENSION, 10) == -1 && errno == EIO);
	whole_life();
}

static struct vm shared;

static void *runs(void *which)
{
	for (int i = 0; i < 20; i++)
		run(&shared, which != NULL);
	return NULL;
}

static void threads(void)
{
	pthread_t other;
	shared = create(2);
	CHECK(pthread_create(&other, NULL, runs, &shared) == 0);
	runs(NULL);
	CHECK(pthread_join(other, NULL) == 0);
	get_log(shared.fd);
	CHECK(check_all(&shared) > 1500);
}

static void send_fd(int socket, int fd)
{
	char control[CMSG_SPACE(sizeof fd)] = { 0 }, byte = 0;
	struct iovec data = { &byte, 1 };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1,
				  .msg_control = control, .msg_controllen = sizeof control };
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof fd);
	memcpy(CMSG_DATA(header), &fd, sizeof fd);
	CHECK(sendmsg(socket, &message, 0) == 1);
}

static int receive_fd(int socket)
{
	char control[CMSG_SPACE(sizeof(int))], byte;
	struct iovec data = { &byte, 1 };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1,
				  .msg_control = control, .msg_controllen = sizeof control };
	int fd;
	CHECK(recvmsg(socket, &message, 0) == 1);
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
	return fd;
}

/* Descriptors move about; each time a second VM is made when only the moved one is left. */
static void descriptors(void)
{
	int pair[2];
	struct vm vm = create(1);
	int other = dup2(vm.fd, 100);
	CHECK(other == 100);
	close(vm.fd);
	create(1);
	CHECK(ioctl(vm.fd, KVM_CHECK_EXTENSION, 10) == -1 || vm.fd != 100);
	get_log(other);
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	send_fd(pair[0], other);
	close(other);
	CHECK(ioctl(other, KVM_CHECK_EXTENSION, 10) == -1 && errno == EBADF);
	create(1);
	other = receive_fd(pair[1]);
	run(&vm, 0);
	get_log(other);
	CHECK(check_all(&vm) > 50);
}

static void reopens(void)
{
	for (int i = 0; i < 20; i++) {
		struct vm vm = create(1);
		run(&vm, 0);
		get_log(vm.fd);
		munmap(vm.run[0], PAGE);
		close(vm.vcpu[0]);
		close(vm.fd);
		close(vm.kvm);
		munmap(vm.memory - PAGE, (PAGES + 2) * PAGE);
	}
}

static volatile long alarms;

static void count_alarm(int number)
{
	(void)number;
	alarms++;
}

/* The guest writes the number of its round: a page of this round that is not in this round's log
 * was lost, by a call that was made twice. */
static void storm(int rounds)
{
	struct vm vm = create(1);
	struct itimerval every = { { 0, 300 }, { 0, 300 } };
	struct sigaction action = { .sa_handler = count_alarm, .sa_flags = SA_RESTART };
	CHECK(sigaction(SIGALRM, &action, NULL) == 0);
	CHECK(setitimer(ITIMER_REAL, &every, NULL) == 0);
	for (int round = 1; round <= rounds; round++) {
		run(&vm, 0);
		get_log(vm.fd);
		for (int page = 0; page < PAGES; page++)
			CHECK(is_dirty(page) == (word(&vm, page) == (uint64_t)round));
	}
	CHECK(alarms > 20);
}

static pthread_t runner;
static volatile int stop_kicking;

static void *kicks(void *unused)
{
	while (!stop_kicking) {
		usleep(20000);
		pthread_kill(runner, SIGUSR1);
	}
	return unused;
}

/* Of a guest that never stops: a signal ends KVM_RUN, by its own mask or by KVM's. */
static void kick(int with_mask)
{
	struct vm vm = create(1);
	pthread_t other;
	struct sigaction action = { .sa_handler = count_alarm };
	runner = pthread_self();
	CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
	if (with_mask) {
		uint32_t none_blocked[3] = { 8, 0, 0 }; /* struct kvm_signal_mask */
		sigset_t set;
		sigemptyset(&set);
		sigaddset(&set, SIGUSR1);
		CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
		CHECK(ioctl(vm.vcpu[0], KVM_SET_SIGNAL_MASK, none_blocked) == 0);
	}
	CHECK(pthread_create(&other, NULL, kicks, NULL) == 0);
	CHECK(ioctl(vm.vcpu[0], KVM_RUN, 0) == -1 && errno == EINTR);
	CHECK(vm.run[0]->exit_reason == KVM_EXIT_INTR);
	CHECK(with_mask || alarms > 0);
	stop_kicking = 1;
	CHECK(pthread_join(other, NULL) == 0);
	vm.run[0]->immediate_exit = 1;
	CHECK(ioctl(vm.vcpu[0], KVM_RUN, 0) == -1 && errno == EINTR);
}

static void *runs_forever(void *unused)
{
	ioctl(shared.vcpu[0], KVM_RUN, 0);
	CHECK(0);
	return unused;
}

/* Others are answered while a vCPU runs; and a process may end with a vCPU running. */
static void leaves_one_running(void)
{
	pthread_t other;
	shared = create(2);
	CHECK(pthread_create(&other, NULL, runs_forever, NULL) == 0);
	while (*(volatile unsigned char *)shared.memory == 0)
		usleep(1000);
	for (int i = 0; i < 20; i++)
		get_log(shared.fd);
	printf("done\n");
	fflush(stdout);
	_exit(4);
}

static void orphans(void)
{
	pid_t first = getppid();
	if (fork() != 0)
		_exit(7);
	usleep(200000);
	CHECK(getppid() == first);
	whole_life();
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	if (!strcmp(what, "whole-life"))
		whole_life();
	else if (!strcmp(what, "without-guest"))
		without_guest();
	else if (!strcmp(what, "forks"))
		forks();
	else if (!strcmp(what, "executes"))
		executes(argv[0]);
	else if (!strcmp(what, "executed"))
		executed(atoi(argv[2]));
	else if (!strcmp(what, "threads"))
		threads();
	else if (!strcmp(what, "descriptors"))
		descriptors();
	else if (!strcmp(what, "reopens"))
		reopens();
	else if (!strcmp(what, "storm"))
		storm(atoi(argv[2]));
	else if (!strcmp(what, "kick"))
		kick(0);
	else if (!strcmp(what, "kick-with-mask"))
		kick(1);
	else if (!strcmp(what, "leaves-one-running"))
		leaves_one_running();
	else if (!strcmp(what, "orphans"))
		orphans();
	else
		return 98;
	return 0;
}
