// What GCC's code calls of OpenMP, on pthreads: ThreadSanitizer knows their forks, joins and barriers, but not libgomp's.
// Loaded before libgomp, for sanitize.py. Teams are made anew for each parallel region; one within another has one thread.

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { MOST = 1024 };

typedef struct {
    void (*work)(void *);
    void *data;
    int threads;
    pthread_barrier_t barrier;
} Team;

typedef struct {
    Team *team;
    int number;
} Member;

static __thread Member me;

int omp_get_max_threads(void) {
    const long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > MOST ? MOST : (int)n;
}
int omp_get_num_threads(void) { return me.team ? me.team->threads : 1; }
int omp_get_thread_num(void) { return me.number; }

void GOMP_barrier(void) {
    if (me.team && me.team->threads > 1) pthread_barrier_wait(&me.team->barrier);
}

static void *begin(void *member) {
    me = *(Member *)member;
    me.team->work(me.team->data);
    return NULL;
}

void GOMP_parallel(void (*work)(void *), void *data, unsigned threads, unsigned flags) {
    const Member before = me;
    const int wanted = before.team ? 1 : threads ? (int)threads : omp_get_max_threads();
    Team team = {.work = work, .data = data, .threads = wanted > MOST ? MOST : wanted};
    Member members[MOST];
    pthread_t ids[MOST];
    (void)flags;
    pthread_barrier_init(&team.barrier, NULL, (unsigned)team.threads);
    for (int k = 0; k < team.threads; ++k) {
        members[k] = (Member){&team, k};
        if (k > 0 && pthread_create(&ids[k], NULL, begin, &members[k]) != 0) {
            fputs("openmp_on_pthreads: no more threads\n", stderr);
            abort();
        }
    }
    begin(&members[0]);
    for (int k = 1; k < team.threads; ++k) pthread_join(ids[k], NULL);
    pthread_barrier_destroy(&team.barrier);
    me = before;
}
