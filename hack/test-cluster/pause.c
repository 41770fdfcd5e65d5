/* The process that holds a pod's namespaces: it waits until it is told to end, and collects
   the orphans of the pod's containers. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void end(int signal) {
	(void)signal;
	_exit(0);
}

static void collect(int signal) {
	(void)signal;
	while (waitpid(-1, 0, WNOHANG) > 0) {
	}
}

int main(void) {
	struct sigaction action = {0};
	action.sa_handler = end;
	sigaction(SIGTERM, &action, 0);
	sigaction(SIGINT, &action, 0);
	action.sa_handler = collect;
	action.sa_flags = SA_NOCLDSTOP;
	sigaction(SIGCHLD, &action, 0);
	for (;;)
		pause();
}
