// Every form of operator new and delete, who is asked when there is no memory.
#include "check.h"
#include <atomic>
#include <list>
#include <malloc.h>
#include <map>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

const std::align_val_t ALIGNED{256};
// More than the address space has, unknown to the compiler.
volatile size_t too_much = PTRDIFF_MAX;

void use(void *block, size_t bytes, size_t alignment) {
    CHECK(block && is_aligned(block, alignment));
    CHECK(malloc_usable_size(block) >= bytes);
    memset(block, 0x5a, bytes);
}

void all_forms() {
    for (size_t bytes : {size_t{0}, size_t{1}, size_t{16}, size_t{100}, size_t{5000}, size_t{100000}, size_t{3} << 20}) {
        void *block = ::operator new(bytes);
        use(block, bytes, 16);
        ::operator delete(block);
        block = ::operator new[](bytes);
        use(block, bytes, 16);
        ::operator delete[](block);
        block = ::operator new(bytes, std::nothrow);
        use(block, bytes, 16);
        ::operator delete(block, std::nothrow);
        block = ::operator new[](bytes, std::nothrow);
        use(block, bytes, 16);
        ::operator delete[](block, std::nothrow);
        block = ::operator new(bytes);
        use(block, bytes, 16);
        ::operator delete(block, bytes);
        block = ::operator new[](bytes);
        use(block, bytes, 16);
        ::operator delete[](block, bytes);
    }
}

void all_aligned_forms() {
    for (size_t alignment = 8; alignment <= 64 << 10; alignment *= 2) {
        const std::align_val_t aligned{alignment};
        for (size_t bytes : {size_t{0}, size_t{1}, size_t{40}, size_t{300}, size_t{70000}, size_t{2} << 20}) {
            void *block = ::operator new(bytes, aligned);
            use(block, bytes, alignment);
            ::operator delete(block, aligned);
            block = ::operator new[](bytes, aligned);
            use(block, bytes, alignment);
            ::operator delete[](block, aligned);
            block = ::operator new(bytes, aligned, std::nothrow);
            use(block, bytes, alignment);
            ::operator delete(block, aligned, std::nothrow);
            block = ::operator new[](bytes, aligned, std::nothrow);
            use(block, bytes, alignment);
            ::operator delete[](block, aligned, std::nothrow);
            block = ::operator new(bytes, aligned);
            use(block, bytes, alignment);
            ::operator delete(block, bytes, aligned);
            block = ::operator new[](bytes, aligned);
            use(block, bytes, alignment);
            ::operator delete[](block, bytes, aligned);
        }
    }
}

void nothing_is_deleted_quietly() {
    void *none = nullptr;
    ::operator delete(none);
    ::operator delete[](none);
    ::operator delete(none, size_t{16});
    ::operator delete[](none, size_t{16});
    ::operator delete(none, ALIGNED);
    ::operator delete[](none, ALIGNED);
    ::operator delete(none, size_t{16}, ALIGNED);
    ::operator delete[](none, size_t{16}, ALIGNED);
    ::operator delete(none, std::nothrow);
    ::operator delete[](none, std::nothrow);
    ::operator delete(none, ALIGNED, std::nothrow);
    ::operator delete[](none, ALIGNED, std::nothrow);
}

template <typename F> bool throws(F request) {
    try {
        request();
    } catch (const std::bad_alloc &fault) {
        return fault.what() != nullptr;
    }
    return false;
}

void no_memory_throws() {
    CHECK(throws([] { return ::operator new(too_much); }));
    CHECK(throws([] { return ::operator new[](too_much); }));
    CHECK(throws([] { return ::operator new(too_much, ALIGNED); }));
    CHECK(throws([] { return ::operator new[](too_much, ALIGNED); }));
    CHECK(::operator new(too_much, std::nothrow) == nullptr);
    CHECK(::operator new[](too_much, std::nothrow) == nullptr);
    CHECK(::operator new(too_much, ALIGNED, std::nothrow) == nullptr);
    CHECK(::operator new[](too_much, ALIGNED, std::nothrow) == nullptr);
    CHECK(throws([] { return std::vector<char>(too_much / 2).data(); }));
}

int asked;

void give_up_at_the_third_time() {
    if (++asked == 3) std::set_new_handler(nullptr);
}

void throw_at_once() {
    asked++;
    throw std::bad_alloc();
}

void the_handler_is_asked() {
    const auto ask = [](std::new_handler handler, auto request) {
        asked = 0;
        std::set_new_handler(handler);
        request();
        std::set_new_handler(nullptr);
        return asked;
    };
    CHECK(ask(give_up_at_the_third_time, [] { CHECK(throws([] { return ::operator new(too_much); })); }) == 3);
    CHECK(ask(give_up_at_the_third_time, [] { CHECK(throws([] { return ::operator new[](too_much, ALIGNED); })); }) == 3);
    CHECK(ask(give_up_at_the_third_time, [] { CHECK(!::operator new(too_much, std::nothrow)); }) == 3);
    CHECK(ask(give_up_at_the_third_time, [] { CHECK(!::operator new[](too_much, ALIGNED, std::nothrow)); }) == 3);
    CHECK(ask(throw_at_once, [] { CHECK(throws([] { return ::operator new(too_much); })); }) == 1);
    // What the handler throws becomes null where nothing may be thrown.
    CHECK(ask(throw_at_once, [] { CHECK(!::operator new(too_much, std::nothrow)); }) == 1);
    CHECK(ask(throw_at_once, [] { CHECK(!::operator new[](too_much, ALIGNED, std::nothrow)); }) == 1);
}

struct alignas(512) Wide {
    char bytes[700];
};

struct Counted {
    static std::atomic<int> alive;
    std::string name = "a name that is too long to be kept inside of the string itself";
    Counted() { alive++; }
    Counted(const Counted &) { alive++; }
    ~Counted() { alive--; }
};
std::atomic<int> Counted::alive;

void objects() {
    for (int round = 0; round < 100; round++) {
        std::unique_ptr<Wide[]> wide(new Wide[round + 1]);
        CHECK(is_aligned(wide.get(), 512));
        std::vector<std::shared_ptr<Counted>> held;
        for (int n = 0; n < 100; n++) held.push_back(std::make_shared<Counted>());
        std::unique_ptr<Counted[]> array(new Counted[17]);
        std::map<std::string, std::list<int>> map;
        for (int n = 0; n < 200; n++) map["key " + std::to_string(n % 50)].push_back(n);
        CHECK(map.size() == 50 && map.begin()->second.size() == 4);
        std::thread([moved = std::move(held)]() mutable { moved.clear(); }).join();
    }
    CHECK(Counted::alive == 0);
}

void exceptions_and_their_memory() {
    for (int n = 0; n < 2000; n++) {
        try {
            std::string long_text(static_cast<size_t>(n), 'x');
            throw std::runtime_error(long_text);
        } catch (const std::exception &fault) {
            CHECK(strlen(fault.what()) == static_cast<size_t>(n));
        }
    }
}

// Made before main and destroyed after it.
struct Early {
    std::vector<std::string> words;
    Early() {
        for (int n = 0; n < 1000; n++) words.push_back(std::string(static_cast<size_t>(n), 'e'));
    }
    ~Early() {
        for (size_t n = 0; n < words.size(); n++) CHECK(words[n].size() == n);
        words.clear();
        words.shrink_to_fit();
        std::string last(100000, 'l');
        CHECK(last.back() == 'l');
    }
} early;

thread_local struct Late {
    std::vector<int> *numbers = new std::vector<int>(100, 1);
    ~Late() {
        numbers->resize(10000, 2);
        CHECK(numbers->back() == 2);
        delete numbers;
    }
} late;

void destructors_of_threads_and_of_statics() {
    for (int n = 0; n < 100; n++) std::thread([] { CHECK(late.numbers->size() == 100); }).join();
    CHECK(late.numbers->size() == 100 && early.words.size() == 1000);
}

} // namespace

CASES({"all_forms", all_forms}, {"all_aligned_forms", all_aligned_forms},
      {"nothing_is_deleted_quietly", nothing_is_deleted_quietly}, {"no_memory_throws", no_memory_throws},
      {"the_handler_is_asked", the_handler_is_asked}, {"objects", objects},
      {"exceptions_and_their_memory", exceptions_and_their_memory},
      {"destructors_of_threads_and_of_statics", destructors_of_threads_and_of_statics})
