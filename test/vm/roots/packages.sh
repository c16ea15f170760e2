# What each root file system holds. Changing a list changes its key in the cache, so the root is built anew.
# A root is SUITE/VARIANT; "base" is enough for the scenarios, "matrix" adds the real servers, "h2o"
# the one that Debian 12 has and Debian 13 has not, "kernel" is what the VM boots.

base="systemd systemd-sysv dbus libpam-systemd haproxy nginx-light iproute2 curl procps openssl socat"

matrix="$base apache2 dnsdist dnsmasq-base docker-registry dovecot-imapd fcgiwrap gunicorn hitch knot knot-resolver lighttpd memcached
        mosquitto nats-server nghttp2-proxy nodejs openjdk-21-jdk-headless openssh-server php8.4-fpm puma python3-aiohttp python3-cheroot
        python3-daphne python3-hypercorn python3-tornado python3-twisted python3-waitress redis-server starlet starman stunnel4 tomcat10
        unbound unicorn uvicorn uwsgi-core uwsgi-plugin-python3 valkey-server varnish vsftpd"

h2o="$base h2o"

kernel="linux-image-cloud-amd64 initramfs-tools zstd"
