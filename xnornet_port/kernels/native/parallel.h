/* Work shared between threads: items numbered from 0, each taken by the next thread that is free.
 *
 * The threads are those of the OpenMP that torch has loaded. Threads of our own would compete with torch's, which go on
 * spinning for a while after each of its operations. Where there is no such OpenMP, or after a fork (where its threads
 * are gone), threads are started and joined.
 */
#ifndef XNOR_PARALLEL_H
#define XNOR_PARALLEL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

typedef void (*xnor_parallel_fn)(void (*fn)(void *), void *data, unsigned threads, unsigned flags);

struct xnor_work {
    void (*item)(void *context, int64_t index);
    void *context;
    int64_t n_items;
    atomic_llong next;
};

static void xnor_take_items(void *data) {
    struct xnor_work *work = data;
    for (;;) {
        int64_t index = atomic_fetch_add_explicit(&work->next, 1, memory_order_relaxed);
        if (index >= work->n_items) return;
        work->item(work->context, index);
    }
}

static void *xnor_thread(void *data) {
    xnor_take_items(data);
    return NULL;
}

static void xnor_parallel(int64_t threads, void *parallel, int64_t n_items, void (*item)(void *, int64_t), void *context) {
    struct xnor_work work = {item, context, n_items, 0};
    if (threads > n_items) threads = n_items;
    if (threads <= 1) {
        xnor_take_items(&work);
    } else if (parallel) {
        xnor_parallel_fn run;
        *(void **)&run = parallel; /* a function's address that came as an object's, as from dlsym */
        run(xnor_take_items, &work, (unsigned)threads, 0);
    } else {
        pthread_t started[64];
        int n_started = 0;
        while (n_started < threads - 1 && n_started < 64 &&
               pthread_create(&started[n_started], NULL, xnor_thread, &work) == 0)
            n_started++;
        xnor_take_items(&work);
        while (n_started > 0) pthread_join(started[--n_started], NULL);
    }
}

#endif
