/* Times single calls, in batches of 100; prints the best and the median batch, in us a call. */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>

#define BATCHES 100
#define CALLS 100

static double now_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1e6 + now.tv_nsec / 1e3;
}

static int compare(const void *a, const void *b)
{
	double left = *(const double *)a, right = *(const double *)b;
	return (left > right) - (left < right);
}

#define TIME(name, call)                                                        \
	do {                                                                    \
		double took[BATCHES];                                           \
		for (int batch = 0; batch < BATCHES; batch++) {                 \
			double start = now_us();                                \
			for (int i = 0; i < CALLS; i++)                         \
				if ((call) < 0)                                 \
					return 1;                               \
			took[batch] = (now_us() - start) / CALLS;               \
		}                                                               \
		qsort(took, BATCHES, sizeof *took, compare);                    \
		printf("%s %.1f %.1f\n", name, took[0], took[BATCHES / 2]);     \
	} while (0)

int main(void)
{
	struct kvm_regs regs;
	struct stat status;
	int kvm = open("/dev/kvm", O_RDWR);
	int vm = ioctl(kvm, KVM_CREATE_VM, 0);
	int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	TIME("KVM_CHECK_EXTENSION", ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_NR_MEMSLOTS));
	TIME("KVM_GET_REGS", ioctl(vcpu, KVM_GET_REGS, &regs));
	TIME("KVM_RUN", ioctl(vcpu, KVM_RUN, 0));
	TIME("stat", stat("/usr", &status));
	TIME("fstat", fstat(kvm, &status));
	return 0;
}
