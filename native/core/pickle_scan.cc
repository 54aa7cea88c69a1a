#include "pickle_scan.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace memfit {

namespace {

constexpr int kDeepest = 200;
constexpr uint64_t kLongestNumber = 1 << 10;
constexpr int64_t kLongestLine = 1 << 20;

// What an opcode does to the stack of nested tuples, which is all that the scan follows of the values.
enum class Effect : uint8_t {
  kRefuse, kUnknown, kPush, kFixed, kCounted, kNumber, kLine, kLineNumber, kTuple, kCollect, kPop, kMark, kPopMark, kDup,
  kGet, kGetLine, kPut, kPutLine, kMemoize, kNothing, kStop,
};

struct Opcode {
  Effect effect = Effect::kUnknown;
  uint8_t width = 0;  // bytes of the argument, or of its length; items taken from the stack
};

struct Table {
  Opcode of[256];
  Table() {
    const auto set = [this](const char* codes, Effect effect, uint8_t width = 0) {
      for (; *codes; ++codes) of[static_cast<uint8_t>(*codes)] = {effect, width};
    };
    set("cio" "bRP" "Q", Effect::kRefuse);  // GLOBAL INST OBJ BUILD REDUCE PERSID BINPERSID
    for (const int code : {0x81, 0x82, 0x83, 0x84, 0x92, 0x93, 0x8f, 0x90, 0x91, 0x96, 0x97, 0x98}) of[code] = {Effect::kRefuse, 0};
    set("N]})", Effect::kPush);
    of[0x88] = of[0x89] = {Effect::kPush, 0};
    set("J", Effect::kFixed, 4);
    set("K", Effect::kFixed, 1);
    set("M", Effect::kFixed, 2);
    set("G", Effect::kFixed, 8);
    of[0x8a] = {Effect::kNumber, 1};
    of[0x8b] = {Effect::kNumber, 4};
    set("TBX", Effect::kCounted, 4);
    set("UC", Effect::kCounted, 1);
    of[0x8c] = {Effect::kCounted, 1};
    of[0x8d] = of[0x8e] = {Effect::kCounted, 8};
    set("SVF", Effect::kLine);
    set("IL", Effect::kLineNumber);
    of[0x85] = {Effect::kTuple, 1};
    of[0x86] = {Effect::kTuple, 2};
    of[0x87] = {Effect::kTuple, 3};
    set("t", Effect::kTuple, 0);
    set("ld", Effect::kCollect);
    set("a", Effect::kPop, 1);
    set("s", Effect::kPop, 2);
    set("eu1", Effect::kPopMark);
    set("0", Effect::kPop, 1);
    set("2", Effect::kDup);
    set("(", Effect::kMark);
    set("h", Effect::kGet, 1);
    set("j", Effect::kGet, 4);
    set("g", Effect::kGetLine);
    set("q", Effect::kPut, 1);
    set("r", Effect::kPut, 4);
    set("p", Effect::kPutLine);
    of[0x94] = {Effect::kMemoize, 0};
    of[0x80] = {Effect::kNothing, 1};
    of[0x95] = {Effect::kNothing, 8};
    set(".", Effect::kStop);
  }
};

uint64_t little(const uint8_t* at, int width) {
  uint64_t value = 0;
  std::memcpy(&value, at, static_cast<size_t>(width));
  return value;
}

}  // namespace

PickleScan scan_pickle(const uint8_t* data, size_t length) {
  static const Table table;
  const auto size = static_cast<int64_t>(length);
  std::vector<uint8_t> stack, memo;
  std::vector<size_t> marks;
  int64_t at = 0;
  const auto floor = [&] { return marks.empty() ? size_t{0} : marks.back(); };
  while (at < size) {
    const int64_t begun = at;
    const Opcode opcode = table.of[data[at++]];
    const auto left = static_cast<uint64_t>(size - at);
    switch (opcode.effect) {
      case Effect::kUnknown: return {begun, Refused::kUnknown};
      case Effect::kRefuse: return {begun, Refused::kClass};
      case Effect::kStop:
        if (at != size) return {at, Refused::kAfter};
        if (stack.size() != 1 || !marks.empty()) return {begun, Refused::kStructure};
        return {-1, Refused::kNothing};
      case Effect::kNothing:
        if (left < opcode.width) return {begun, Refused::kTruncated};
        at += opcode.width;
        break;
      case Effect::kFixed:
        if (left < opcode.width) return {begun, Refused::kTruncated};
        at += opcode.width;
        stack.push_back(0);
        break;
      case Effect::kPush: stack.push_back(0); break;
      case Effect::kNumber:
      case Effect::kCounted: {
        if (left < opcode.width) return {begun, Refused::kTruncated};
        const uint64_t bytes = little(data + at, opcode.width);
        if (opcode.effect == Effect::kNumber && bytes > kLongestNumber) return {begun, Refused::kNumber};
        if (bytes > left - opcode.width) return {begun, Refused::kTruncated};
        at += opcode.width + static_cast<int64_t>(bytes);
        stack.push_back(0);
        break;
      }
      case Effect::kLine:
      case Effect::kLineNumber:
      case Effect::kGetLine:
      case Effect::kPutLine: {
        const auto most = static_cast<size_t>(std::min(size - at, kLongestLine));
        const auto* end = static_cast<const uint8_t*>(std::memchr(data + at, '\n', most));
        if (!end) return {begun, Refused::kTruncated};
        const int64_t letters = end - (data + at);
        if (opcode.effect == Effect::kLine) {
          stack.push_back(0);
        } else if (opcode.effect == Effect::kLineNumber) {
          if (letters > static_cast<int64_t>(kLongestNumber)) return {begun, Refused::kNumber};
          stack.push_back(0);
        } else {
          uint64_t number = 0;
          if (letters < 1 || letters > 9) return {begun, Refused::kMemo};
          for (int64_t i = 0; i < letters; ++i) {
            if (data[at + i] < '0' || data[at + i] > '9') return {begun, Refused::kMemo};
            number = number * 10 + (data[at + i] - '0');
          }
          if (opcode.effect == Effect::kGetLine) {
            if (number >= memo.size()) return {begun, Refused::kMemo};
            stack.push_back(memo[number]);
          } else {
            if (number > memo.size()) return {begun, Refused::kMemo};
            if (stack.size() <= floor()) return {begun, Refused::kStructure};
            if (number == memo.size()) memo.push_back(0);
            memo[number] = stack.back();
          }
        }
        at += letters + 1;
        break;
      }
      case Effect::kTuple: {
        size_t from = floor();
        if (opcode.width == 0) {
          if (marks.empty()) return {begun, Refused::kStructure};
          marks.pop_back();
        } else {
          if (stack.size() < from + opcode.width) return {begun, Refused::kStructure};
          from = stack.size() - opcode.width;
        }
        int deepest = 0;
        for (size_t i = from; i < stack.size(); ++i) deepest = std::max<int>(deepest, stack[i]);
        if (deepest >= kDeepest) return {begun, Refused::kDeep};
        stack.resize(from);
        stack.push_back(static_cast<uint8_t>(deepest + 1));
        break;
      }
      case Effect::kCollect:
      case Effect::kPopMark:
        if (marks.empty()) return {begun, Refused::kStructure};
        stack.resize(marks.back());
        marks.pop_back();
        if (opcode.effect == Effect::kCollect) stack.push_back(0);
        break;
      case Effect::kPop:
        if (stack.size() < floor() + opcode.width) return {begun, Refused::kStructure};
        stack.resize(stack.size() - opcode.width);
        break;
      case Effect::kMark:
        if (marks.size() >= kDeepest) return {begun, Refused::kDeep};
        marks.push_back(stack.size());
        break;
      case Effect::kDup:
        if (stack.size() <= floor()) return {begun, Refused::kStructure};
        stack.push_back(stack.back());
        break;
      case Effect::kGet:
      case Effect::kPut: {
        if (left < opcode.width) return {begun, Refused::kTruncated};
        const uint64_t number = little(data + at, opcode.width);
        at += opcode.width;
        if (opcode.effect == Effect::kGet) {
          if (number >= memo.size()) return {begun, Refused::kMemo};
          stack.push_back(memo[number]);
        } else {
          if (number > memo.size()) return {begun, Refused::kMemo};
          if (stack.size() <= floor()) return {begun, Refused::kStructure};
          if (number == memo.size()) memo.push_back(0);
          memo[number] = stack.back();
        }
        break;
      }
      case Effect::kMemoize:
        if (stack.size() <= floor()) return {begun, Refused::kStructure};
        memo.push_back(stack.back());
        break;
    }
  }
  return {size, Refused::kTruncated};
}

}  // namespace memfit
