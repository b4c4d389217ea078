#!/bin/sh
# Installs Chromium for the tests of the studio's page, unless the system has one. Uses apt-get, as root or by sudo.
set -eu
for name in chromium chromium-browser google-chrome; do
    if path=$(command -v "$name"); then
        echo "browser: $path is there"
        exit 0
    fi
done
other="install chromium by the system's own means, or: python -m playwright install chromium"
if ! command -v apt-get >/dev/null; then
    echo "browser: this system has no apt-get; $other" >&2
    exit 1
fi
if [ "$(id -u)" = 0 ]; then
    apt-get update -qq
    exec apt-get install -y -qq --no-install-recommends chromium
fi
if ! sudo -n true 2>/dev/null; then
    echo "browser: apt-get needs root; run as root: apt-get install chromium, or $other" >&2
    exit 1
fi
sudo apt-get update -qq
exec sudo apt-get install -y -qq --no-install-recommends chromium
