/* The one thread that enters OpenMP for XLA.

   XLA makes its calls from any thread of its pool, and OpenMP keeps a team for each thread that ever asked for one: on n
   CPUs that would come to n * (n - 1) threads, and OpenMP ends the process where it cannot start one. So a call that is
   worth several threads is handed to a thread that has the only team; where that is at work, XLA already computes several
   calls at once, and the call is made by the thread that it came from. */
#pragma once

#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

#include "cpubn.h"

class Team {
  public:
    typedef int (*Pass)(const cpubn_call *);

    /* The status of a call. */
    int run(Pass pass, cpubn_call &call, bool is_large) {
        if (is_large && call.threads > 1) {
            std::unique_lock<std::mutex> turn(free, std::try_to_lock);
            if (turn.owns_lock() && start()) return handed(pass, call);
        }
        call.threads = 1;
        return pass(&call);
    }

  private:
    bool start() {
        if (!is_started) {
            try {
                std::thread([this] { work(); }).detach();
                is_started = true;
            } catch (const std::system_error &) {} // there is no thread to be had
        }
        return is_started;
    }

    int handed(Pass pass, const cpubn_call &call) {
        std::unique_lock<std::mutex> lock(mutex);
        wanted_pass = pass;
        wanted = &call;
        changed.notify_all();
        changed.wait(lock, [this] { return wanted == nullptr; });
        return status;
    }

    void work() {
        std::unique_lock<std::mutex> lock(mutex);
        for (;;) {
            changed.wait(lock, [this] { return wanted != nullptr; });
            status = wanted_pass(wanted);
            wanted = nullptr;
            changed.notify_all();
        }
    }

    std::mutex free, mutex; /* free: held while a call is handed over */
    std::condition_variable changed;
    bool is_started = false;
    Pass wanted_pass = nullptr;
    const cpubn_call *wanted = nullptr;
    int status = 0;
};
