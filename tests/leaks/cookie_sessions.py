"""A crawler gives every request a cookie session of its own; the middleware keeps the jar of each session for good.

source: scrapy/scrapy#715
leaks: cookie jars of sessions used once
holder: jars
seen: no
kind: request-cache
birth: the line that makes the jar
steps: 150
"""

import collections
import email.message
import http.cookiejar
import sys
import urllib.request


class Answer:
    def __init__(self, number):
        self.message = email.message.Message()
        for part in range(4):
            self.message["Set-Cookie"] = f"part{part}={'v' * 200}{number}; Path=/{number}/{part}"

    def info(self):
        return self.message


class Cookies:
    def __init__(self):
        self.jars = collections.defaultdict(http.cookiejar.CookieJar)

    def process(self, request, session, answer):
        jar = self.jars[session]  # born here
        policy = http.cookiejar.DefaultCookiePolicy(strict_ns_set_path=False)
        jar.set_policy(policy)
        jar.extract_cookies(answer, request)
        return len(jar)


def main(steps):
    cookies, total = Cookies(), 0
    for step in range(steps):
        for part in range(3):
            number = step * 3 + part
            request = urllib.request.Request(f"http://example.org/{number}/0")
            total += cookies.process(request, f"session-{number}", Answer(number))
    print(total)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150)
