// As much of the Arduino API as the sketch of docs/devices.md uses, declared as the ESP32 core has it. What a sketch
// does is printed; time passes with each look at the clock.
#pragma once

#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <string>

typedef uint8_t byte;

class String {
public:
  String(const char *text = "") : text_(text) {}
  const char *c_str() const { return text_.c_str(); }

private:
  std::string text_;
};

class StringSumHelper : public String {
public:
  StringSumHelper(const char *text) : String(text) {}
};

inline StringSumHelper operator+(const StringSumHelper &left, const String &right) {
  return StringSumHelper((std::string(left.c_str()) + right.c_str()).c_str());
}

class HardwareSerial {
public:
  void begin(unsigned long) {}
  size_t printf(const char *format, ...) __attribute__((format(printf, 2, 3))) {
    va_list arguments;
    va_start(arguments, format);
    int size = vprintf(format, arguments);
    va_end(arguments);
    return size < 0 ? 0 : (size_t)size;
  }
};

inline HardwareSerial Serial;

inline unsigned long clock_ms = 0;
inline unsigned long millis() { return clock_ms += 4000; }
inline void delay(uint32_t ms) { clock_ms += ms; }

void setup();
void loop();
