/*
 * Loaded into User Mode Linux (LD_PRELOAD) on processors whose state is larger than it knows.
 *
 * Up to Linux 6.12 it keeps 2696 bytes of a process's registers, which is all up to AVX-512 and PKRU. On a processor
 * with AMX the host's kernel takes no less than the whole state, 11008 bytes (EFAULT from PTRACE_SETREGSET), and no
 * process of the guest starts. Here the state is made whole: the rest is as after a reset, which it always is, since
 * only a process that asks its kernel for AMX can change it, and the guest's kernel does not know the request.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

/* The XSAVE area: 512 bytes of FXSAVE, then the header, which begins with the bits of what follows (Intel SDM 13.4). */
#define HEADER 512
/* The parts that lie within 2696 bytes: x87, SSE, AVX, MPX (two), AVX-512 (three), PKRU. */
#define KNOWN 0x2ffULL

static long (*next)(enum __ptrace_request, ...);
/* Not on the stack, since that is a kernel's and small; nobody else is here, since User Mode Linux has one processor. */
static unsigned char whole[1 << 16] __attribute__((aligned(64)));

__attribute__((constructor)) static void find_next(void)
{
	next = (long (*)(enum __ptrace_request, ...))dlsym(RTLD_NEXT, "ptrace");
}

long ptrace(enum __ptrace_request request, ...)
{
	va_list arguments;
	va_start(arguments, request);
	pid_t process = va_arg(arguments, pid_t);
	void *address = va_arg(arguments, void *);
	void *data = va_arg(arguments, void *);
	va_end(arguments);

	if (request != PTRACE_SETREGSET || (uintptr_t)address != NT_X86_XSTATE)
		return next(request, process, address, data);

	struct iovec *given = data;
	static size_t size;
	if (size == 0) {
		struct iovec now = { whole, sizeof(whole) };
		if (next(PTRACE_GETREGSET, process, address, &now) < 0)
			return -1;
		size = now.iov_len;
	}
	if (given->iov_len >= size)
		return next(request, process, address, data);
	memset(whole, 0, size);
	memcpy(whole, given->iov_base, given->iov_len);
	uint64_t present;
	memcpy(&present, whole + HEADER, sizeof(present));
	present &= KNOWN;
	memcpy(whole + HEADER, &present, sizeof(present));
	struct iovec made = { whole, size };
	return next(request, process, address, &made);
}
