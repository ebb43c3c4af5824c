// PubSubClient, whose first connection is refused, and which answers what is published.
#pragma once

#include "WiFi.h"

#define MQTT_CALLBACK_SIGNATURE void (*callback)(char *, uint8_t *, unsigned int)

class PubSubClient {
public:
  PubSubClient(Client &) {}
  PubSubClient &setServer(const char *domain, uint16_t port) {
    printf("server %s %u\n", domain, port);
    return *this;
  }
  PubSubClient &setCallback(MQTT_CALLBACK_SIGNATURE) {
    callback_ = callback;
    return *this;
  }
  bool connect(const char *id) {
    printf("connect %s\n", id);
    return connected_ = attempts_++ > 0;
  }
  bool connected() { return connected_; }
  bool loop() {
    if (answer_) callback_(topic_, (uint8_t *)"OK?", 2);
    answer_ = false;
    return connected_;
  }
  bool publish(const char *topic, const char *payload) {
    printf("publish %s %s\n", topic, payload);
    snprintf(topic_, sizeof topic_, "%s/status", topic);
    return answer_ = true;
  }

private:
  void (*callback_)(char *, uint8_t *, unsigned int) = nullptr;
  int attempts_ = 0;
  bool connected_ = false, answer_ = false;
  char topic_[256];
};
