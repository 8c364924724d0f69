# Install, uninstall and the manual pages; included by the Makefile. PREFIX and DESTDIR are as everywhere; the folders can be set one by one.

DESTDIR ?=
PREFIX ?= /usr/local
override PREFIX := $(abspath $(PREFIX))
INCLUDEDIR ?= $(PREFIX)/include
LIBDIR ?= $(PREFIX)/lib
MANDIR ?= $(PREFIX)/share/man
PKGCONFIGDIR ?= $(LIBDIR)/pkgconfig
CMAKEDIR ?= $(LIBDIR)/cmake/messaging
PKG_CONFIG ?= pkg-config
PYTHON3 ?= python3

INSTALL_HEADERS = $(DESTDIR)$(INCLUDEDIR)
INSTALL_CMAKE = $(DESTDIR)$(CMAKEDIR)
INSTALL_PC = $(DESTDIR)$(PKGCONFIGDIR)/messaging.pc
INSTALL_MAN = $(DESTDIR)$(MANDIR)
INSTALL_FILES = $(INSTALL_HEADERS)/messaging.h $(INSTALL_HEADERS)/messaging_impl.h $(INSTALL_PC) $(INSTALL_CMAKE)/messagingConfig.cmake \
  $(INSTALL_CMAKE)/messagingConfigVersion.cmake $(INSTALL_MAN)/man3/messaging.3 $(INSTALL_MAN)/man7/messaging.7

# The templates learn the folders, the version, and under which name the system has msgpack-c.
INSTALL_FILL = sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@INCLUDEDIR@|$(patsubst $(PREFIX)/%,$${prefix}/%,$(INCLUDEDIR))|' \
  -e "s|@VERSION@|$$(sed -n 's/^.define MESSAGING_VERSION_STRING "\(.*\)"/\1/p' messaging.h)|" \
  -e "s|@MSGPACK@|$$($(PKG_CONFIG) --exists msgpack && ! $(PKG_CONFIG) --exists msgpack-c && echo msgpack || echo msgpack-c)|" \
  -e "s|@RELATIVE_INCLUDEDIR@|$$(realpath -m --relative-to='$(CMAKEDIR)' '$(INCLUDEDIR)')|"

.PHONY: install uninstall man man-check

install: ## headers, pkg-config file, CMake package and manual pages below PREFIX (/usr/local)
	@umask 022 && mkdir -p "$(INSTALL_HEADERS)" "$(DESTDIR)$(PKGCONFIGDIR)" "$(INSTALL_CMAKE)" "$(INSTALL_MAN)/man3" "$(INSTALL_MAN)/man7"
	install -m 644 messaging.h messaging_impl.h "$(INSTALL_HEADERS)"
	@umask 022 && $(INSTALL_FILL) tests/install/messaging.pc.in > "$(INSTALL_PC)" && echo "wrote $(INSTALL_PC)"
	@umask 022 && for name in messagingConfig.cmake messagingConfigVersion.cmake; do \
	  $(INSTALL_FILL) tests/install/$$name.in > "$(INSTALL_CMAKE)/$$name" && echo "wrote $(INSTALL_CMAKE)/$$name" || exit 1; done
	@umask 022 && if ! command -v $(PYTHON3) > /dev/null; then echo "no $(PYTHON3): the manual pages were not made"; else \
	  for page in 3 7; do $(PYTHON3) tests/man/man.py $$page > "$(INSTALL_MAN)/man$$page/messaging.$$page" && \
	  echo "wrote $(INSTALL_MAN)/man$$page/messaging.$$page" || exit 1; done; fi

uninstall: ## removes what install put there, with the same PREFIX
	rm -f $(foreach file,$(INSTALL_FILES),"$(file)")
	@-rmdir "$(INSTALL_CMAKE)" 2> /dev/null || true

man: ## the manual pages, in build/man: man -l build/man/messaging.3
	mkdir -p build/man
	$(PYTHON3) tests/man/man.py 3 > build/man/messaging.3
	$(PYTHON3) tests/man/man.py 7 > build/man/messaging.7

man-check: ## whether the documented names and signatures are those that exist
	$(PYTHON3) tests/man/man.py check
