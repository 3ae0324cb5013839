// A process with one thread that sleeps in one way, all its registers full of known values; after
// every sleep it looks whether anything about it has changed. Usage: sleeper KIND. Prints the
// thread's id; then, for each line on stdin, ends the sleep, if that does not end by itself, and
// prints a report: what had changed, how often the sleep was cut short by EINTR, what it returned,
// how long it took in microseconds, and how many signals the thread has handled in all.
#define _GNU_SOURCE
#include <cpuid.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { GENERAL = 12, XSAVE_BYTES = 4096, LEGACY_END = 416, HEADER = 512 };
static const long SHORT_NS = 300 * 1000 * 1000;

struct state {
    uint64_t general[GENERAL];  // rdi rsi rdx r10 r8 r9 rbx rbp r12 r13 r14 r15
    uint64_t rax;
    uint64_t features;
    uint8_t xsave[XSAVE_BYTES] __attribute__((aligned(64)));  // at 128
};

// Loads all registers from `before`, calls the kernel, stores them to `after`.
void probe(const struct state *before, struct state *after);
asm(".text\n.globl probe\n.type probe,@function\nprobe:\n"
    "push %rbx\npush %rbp\npush %r12\npush %r13\npush %r14\npush %r15\npush %rsi\n"
    "mov 104(%rdi),%eax\nxor %edx,%edx\nxrstor64 128(%rdi)\n"
    "mov 8(%rdi),%rsi\nmov 16(%rdi),%rdx\nmov 24(%rdi),%r10\nmov 32(%rdi),%r8\n"
    "mov 40(%rdi),%r9\nmov 48(%rdi),%rbx\nmov 56(%rdi),%rbp\nmov 64(%rdi),%r12\n"
    "mov 72(%rdi),%r13\nmov 80(%rdi),%r14\nmov 88(%rdi),%r15\nmov 96(%rdi),%rax\n"
    "mov (%rdi),%rdi\n"
    "syscall\n"
    "mov (%rsp),%rcx\n"  // the kernel has overwritten it anyway
    "mov %rdi,(%rcx)\nmov %rsi,8(%rcx)\nmov %rdx,16(%rcx)\nmov %r10,24(%rcx)\n"
    "mov %r8,32(%rcx)\nmov %r9,40(%rcx)\nmov %rbx,48(%rcx)\nmov %rbp,56(%rcx)\n"
    "mov %r12,64(%rcx)\nmov %r13,72(%rcx)\nmov %r14,80(%rcx)\nmov %r15,88(%rcx)\n"
    "mov %rax,96(%rcx)\nmov 104(%rcx),%eax\nxor %edx,%edx\nxsave64 128(%rcx)\nfninit\n"
    "pop %rsi\npop %r15\npop %r14\npop %r13\npop %r12\npop %rbp\npop %rbx\nret\n");

static const char *kind;
static uint32_t word;
static int pipe_fds[2], report_fds[2];
static volatile int signals_seen;
static volatile int woken, lasts;

static void on_signal(int number) { (void)number; signals_seen++; }

static long long now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static struct timespec at_ns(long long ns)
{
    return (struct timespec){ns / 1000000000LL, ns % 1000000000LL};
}

static uint32_t pkru(void)
{
    uint32_t a, d;
    asm volatile("rdpkru" : "=a"(a), "=d"(d) : "c"(0));
    return a;
}

static uint64_t mask(void)
{
    uint64_t bits = 0;
    syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &bits, sizeof bits);
    return bits;
}

// A system call that sleeps; whether by itself for SHORT_NS, or until it is ended.
struct sleep { long number, args[6], lasts; };
static struct timespec asked, left;
static struct pollfd polled;
static struct epoll_event event;
static char byte;
static uint64_t one_signal = 1ull << (SIGUSR2 - 1);

static struct sleep make_sleep(void)
{
    long long until = now_ns() + SHORT_NS;
    polled = (struct pollfd){pipe_fds[0], POLLIN, 0};
    asked = at_ns(SHORT_NS);
    left = (struct timespec){0, 0};
    if (!strcmp(kind, "futex"))
        return (struct sleep){SYS_futex, {(long)&word, FUTEX_WAIT_PRIVATE, 0}, 0};
    if (!strcmp(kind, "futex-bitset"))
        return (struct sleep){SYS_futex, {(long)&word, FUTEX_WAIT_BITSET_PRIVATE, 0, 0, 0, -1}, 0};
    if (!strcmp(kind, "futex-until")) {
        asked = at_ns(until);
        return (struct sleep){SYS_futex, {(long)&word, FUTEX_WAIT_BITSET_PRIVATE, 0, (long)&asked, 0, -1}, 1};
    }
    if (!strcmp(kind, "futex-for"))
        return (struct sleep){SYS_futex, {(long)&word, FUTEX_WAIT_PRIVATE, 0, (long)&asked}, 1};
    if (!strcmp(kind, "ppoll") || !strcmp(kind, "handler") || !strcmp(kind, "seccomp"))
        return (struct sleep){SYS_ppoll, {(long)&polled, 1}, 0};
    if (!strcmp(kind, "ppoll-for"))
        return (struct sleep){SYS_ppoll, {(long)&polled, 1, (long)&asked}, 1};
    if (!strcmp(kind, "ppoll-mask"))
        return (struct sleep){SYS_ppoll, {(long)&polled, 1, 0, (long)&one_signal, 8}, 0};
    if (!strcmp(kind, "poll"))
        return (struct sleep){SYS_poll, {(long)&polled, 1, -1}, 0};
    if (!strcmp(kind, "poll-for"))
        return (struct sleep){SYS_poll, {(long)&polled, 1, SHORT_NS / 1000000}, 1};
    if (!strcmp(kind, "nanosleep"))
        return (struct sleep){SYS_nanosleep, {(long)&asked, (long)&left}, 1};
    if (!strcmp(kind, "nanosleep-blind"))
        return (struct sleep){SYS_nanosleep, {(long)&asked, 0}, 1};
    if (!strcmp(kind, "clock-nanosleep"))
        return (struct sleep){SYS_clock_nanosleep, {CLOCK_MONOTONIC, 0, (long)&asked, (long)&left}, 1};
    if (!strcmp(kind, "clock-nanosleep-until")) {
        asked = at_ns(until);
        return (struct sleep){SYS_clock_nanosleep, {CLOCK_MONOTONIC, TIMER_ABSTIME, (long)&asked}, 1};
    }
    if (!strcmp(kind, "read"))
        return (struct sleep){SYS_read, {pipe_fds[0], (long)&byte, 1}, 0};
    if (!strcmp(kind, "epoll")) {
        int fd = epoll_create1(0);
        event.events = EPOLLIN;
        epoll_ctl(fd, EPOLL_CTL_ADD, pipe_fds[0], &event);
        return (struct sleep){SYS_epoll_pwait, {fd, (long)&event, 1, -1, 0, 8}, 0};
    }
    fprintf(stderr, "no such kind\n");
    exit(2);
}

// x87, SSE, AVX, and the three parts of AVX-512, as far as this CPU has them.
static uint32_t features(void)
{
    uint32_t low, high;
    asm("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low & 0xe7;
}

static void fill(struct state *s, const struct sleep *sleep, unsigned seed)
{
    uint16_t x87_control = 0x0b7f;  // rounding up
    uint32_t mxcsr = 0x5f80, used = features();
    uint8_t *bytes = (uint8_t *)s;
    for (size_t i = 0; i < sizeof *s; i++)
        bytes[i] = (seed = seed * 1103515245 + 12345) >> 16;
    memcpy(s->general, sleep->args, sizeof sleep->args);
    s->rax = sleep->number;
    s->features = used;
    memset(s->xsave + LEGACY_END, 0, HEADER + 64 - LEGACY_END);
    memset(s->xsave, 0, 32);
    memcpy(s->xsave, &x87_control, sizeof x87_control);
    s->xsave[4] = 0xff;  // all x87 registers in use
    memcpy(s->xsave + 24, &mxcsr, sizeof mxcsr);
    memcpy(s->xsave + HEADER, &used, sizeof used);
}

static int differences(const struct state *a, const struct state *b)
{
    int count = 0;
    for (int i = 0; i < GENERAL; i++)
        count += a->general[i] != b->general[i];
    count += memcmp(a->xsave, b->xsave, 2) != 0;
    count += memcmp(a->xsave + 24, b->xsave + 24, 4) != 0;
    for (int i = 0; i < 8; i++)
        count += memcmp(a->xsave + 32 + 16 * i, b->xsave + 32 + 16 * i, 10) != 0;
    count += memcmp(a->xsave + 160, b->xsave + 160, LEGACY_END - 160) != 0;
    for (uint32_t part = 2; part < 8; part++) {
        uint32_t size, offset, c, d;
        if (!(a->features & 1u << part))
            continue;
        __cpuid_count(0xd, part, size, offset, c, d);
        count += memcmp(a->xsave + offset, b->xsave + offset, size) != 0;
    }
    return count;
}

static int altstack_changed(const stack_t *before)
{
    stack_t now;
    sigaltstack(NULL, &now);
    return now.ss_sp != before->ss_sp || now.ss_size != before->ss_size || now.ss_flags != before->ss_flags;
}

static void *sleeper(void *stack)
{
    stack_t alternate = {.ss_sp = stack, .ss_size = 65536};
    sigset_t all, none;
    sigemptyset(&none);
    int has_pkru = __builtin_cpu_supports("pku") && pkey_alloc(0, PKEY_DISABLE_WRITE) >= 0;
    sigaltstack(&alternate, NULL);
    sigaltstack(NULL, &alternate);
    sigfillset(&all);
    if (!strcmp(kind, "handler"))
        sigdelset(&all, SIGRTMIN + 1);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    uint64_t mask_before = mask();
    uint32_t pkru_before = has_pkru ? pkru() : 0;
    static struct state before, after;
    after.features = features();
    printf("%d\n", gettid());
    fflush(stdout);
    for (unsigned round = 1;; round++) {
        struct sleep sleep = make_sleep();
        lasts = sleep.lasts;
        int mismatches = 0, interrupted = 0;
        long long start = now_ns();
        for (;;) {
            fill(&before, &sleep, round);
            probe(&before, &after);
            mismatches += differences(&before, &after);
            mismatches += mask() != mask_before;
            mismatches += altstack_changed(&alternate);
            mismatches += has_pkru && pkru() != pkru_before;
            if ((long)after.rax != -EINTR)
                break;
            interrupted++;
            asked = left;
        }
        long long took_us = (now_ns() - start) / 1000;
        mismatches += !sleep.lasts && !woken;  // nobody ended it
        pthread_sigmask(SIG_SETMASK, &none, NULL);  // what signals came meanwhile are counted now
        pthread_sigmask(SIG_SETMASK, &all, NULL);
        if (!sleep.lasts && sleep.number != SYS_futex && sleep.number != SYS_read)
            (void)!read(pipe_fds[0], &byte, 1);
        char line[200];
        int n = snprintf(line, sizeof line, "%d %d %ld %lld %d\n", mismatches, interrupted,
                         (long)after.rax, took_us, signals_seen);
        word = 0;
        woken = 0;
        (void)!write(report_fds[1], line, n);
    }
    return NULL;
}

static void forbid_nothing(void)
{
    struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {1, &allow};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

int main(int argc, char **argv)
{
    pthread_t thread;
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    kind = argc > 1 ? argv[1] : "futex";
    (void)!pipe(pipe_fds);
    (void)!pipe(report_fds);
    for (int number = SIGRTMIN + 1; number <= SIGRTMIN + 2; number++)
        sigaction(number, &action, NULL);
    if (!strcmp(kind, "seccomp"))
        forbid_nothing();
    pthread_create(&thread, NULL, sleeper, malloc(65536));
    char line[200], *report = line;
    while (fgets(line, sizeof line, stdin)) {
        if (!lasts) {
            woken = 1;
            word = 1;
            syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1);
            (void)!write(pipe_fds[1], "x", 1);
        }
        for (report = line; (*report = 0, read(report_fds[0], report, 1) == 1) && *report != '\n';)
            report++;
        *report = 0;
        printf("%s\n", line);
        fflush(stdout);
    }
    return 0;
}
