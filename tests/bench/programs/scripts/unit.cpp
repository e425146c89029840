// What a compiler is given: some of the heavier parts of its own library, used.
#include <algorithm>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <random>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <tuple>
#include <unordered_map>
#include <variant>
#include <vector>

template <int N> struct Tower {
    std::map<std::string, std::vector<std::tuple<int, double, std::string>>> floors;
    Tower<N - 1> below;
    int climb(const std::string &word) {
        floors[word].emplace_back(N, N * 0.5, word + std::to_string(N));
        std::sort(floors[word].begin(), floors[word].end());
        return below.climb(word) + static_cast<int>(floors.size());
    }
};
template <> struct Tower<0> {
    int climb(const std::string &word) { return static_cast<int>(word.size()); }
};

using Value = std::variant<int, std::string, std::vector<double>, std::shared_ptr<std::set<int>>>;

struct Print {
    std::ostream &out;
    void operator()(int n) const { out << n; }
    void operator()(const std::string &text) const { out << text; }
    void operator()(const std::vector<double> &all) const {
        for (double one : all) out << one << ' ';
    }
    void operator()(const std::shared_ptr<std::set<int>> &set) const { out << set->size(); }
};

int main(int argc, char **argv) {
    Tower<24> tower;
    std::unordered_map<std::string, Value> values;
    std::regex words("([a-z]+)-([0-9]{2,4})|(x[yz]*)");
    std::smatch match;
    for (int n = 0; n < argc; n++) {
        std::string word = argv[n];
        if (std::regex_search(word, match, words)) values[match[1]] = word;
        values[word] = tower.climb(word);
    }
    std::ostringstream text;
    for (auto &entry : values) std::visit(Print{text}, entry.second);
    std::function<int(int)> twice = [](int n) { return 2 * n; };
    std::mt19937 random(twice(argc));
    std::cout << text.str() << random() << '\n';
}
