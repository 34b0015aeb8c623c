#include "cli/command_table.hh"

namespace tenon {

namespace {

// clang-format off

constexpr OptionRow kRunOptions[] = {
  {"--engine",         "auto|kvm|jit|interp", "auto",  "what executes the guest; auto: KVM where running code on it works, else jit"},
  {"--cpus",           "N",                   "1",     "virtual CPUs, each a thread"},
  {"--memory",         "SIZE",                "512M",  "guest memory: 512M, 2G"},
  {"--huge-pages",     "",                    "",      "back guest memory with huge pages: for machines that run long; starts slower, shares less"},
  {"--kernel",         "FILE",                "",      "bzImage, vmlinux, PVH ELF or multiboot image; default: Debian's, see 'tenon image'"},
  {"--initrd",         "FILE",                "",      "initial RAM disk; default: ours, with busybox; 'none': no initrd"},
  {"--append",         "TEXT",                "",      "added to the kernel's command line"},
  {"--name",           "NAME",                "tenon", "name of the VM, and its host name"},
  {"--flavour",        "cloud|generic",       "cloud", "which of Debian's kernels to use where --kernel is not given"},
  {"--personality",    "kvm|none",            "kvm",   "paravirtual interface that the guest sees"},
  {"--json",           "",                    "",      "events (start, ready, exit) as lines of JSON on stderr"},
  {"--stats",          "",                    "",      "counters of each vCPU on stderr at the end, and at SIGUSR1; slightly slower"},
  {"--verbose",        "",                    "",      "kernel messages, and more detail on stderr"},
  {"--engine-options", "LIST",                "",      "for finding faults in jit, of: lockstep,strict-flags,cache=MIB,fault-injection=SEED"},
};

constexpr ExampleRow kRunExamples[] = {
  {"tenon run",                                   "a shell in a new virtual machine"},
  {"tenon run -- uname -a",                       "one command; its output and exit status are tenon's"},
  {"tar c src | tenon run -- tar t",              "pipes work both ways"},
  {"tenon run --cpus 4 --memory 2G --engine kvm", "a larger machine, KVM or nothing"},
  {"tenon run --kernel bzImage --append debug",   "a kernel of your own with our initramfs"},
};

constexpr std::string_view kRunDetails =
  "Without COMMAND it is an interactive serial console; Ctrl-] leaves it and ends the machine. Where stdin is no terminal,\n"
  "a short transcript runs instead. With COMMAND, stdin, stdout and stderr pass through exactly; where stdin and stdout\n"
  "are a terminal, COMMAND gets one too.\n"
  "\n"
  "Exit status: COMMAND's; 128+n where signal n ended it; 127 where it was not found, 126 where it cannot be run;\n"
  "125 where tenon or the guest failed. Without COMMAND: 0.";

constexpr OptionRow kImageLsOptions[] = {
  {"--json", "", "", "as JSON, with full paths; also makes the initramfs where it is missing"},
};

constexpr OptionRow kImageFetchOptions[] = {
  {"--flavour", "cloud|generic", "cloud", "linux-image-cloud-amd64 (LZ4 payload) or linux-image-amd64 (XZ payload)"},
};

constexpr OptionRow kImageRmOptions[] = {
  {"--all", "", "", "everything in the cache"},
};

constexpr ExampleRow kImageFetchExamples[] = {
  {"tenon image fetch",                   "or again, for the newest kernel"},
  {"tenon image fetch --flavour generic", "the kernel for any machine"},
};

constexpr ExampleRow kImageRmExamples[] = {
  {"tenon image rm generic", "one kernel"},
  {"tenon image rm --all",   "all that tenon has put into the cache"},
};

constexpr std::string_view kFetchDetails =
  "Downloads with apt-get from the archive that the host is set up for; no root needed, nothing is installed. 'tenon run'\n"
  "does it by itself when it needs a kernel.";

constexpr VerbRow kVerbs[] = {
  {"run",         "[-- COMMAND...]", "start a virtual machine, or one command in it", kRunDetails,   kRunOptions,        kRunExamples},
  {"image ls",    "",                "list the kernels in the cache",                 "",            kImageLsOptions,    {}},
  {"image fetch", "",                "fetch the newest kernel from Debian's archive", kFetchDetails, kImageFetchOptions, kImageFetchExamples},
  {"image rm",    "[FLAVOUR...]",    "remove kernels from the cache",                 "",            kImageRmOptions,    kImageRmExamples},
};

// clang-format on

}  // namespace

std::span<const VerbRow> verb_table() { return kVerbs; }

const VerbRow* find_verb(std::string_view name) {
  for (const VerbRow& verb : kVerbs)
    if (verb.name == name) return &verb;
  return nullptr;
}

const OptionRow* find_option(const VerbRow& verb, std::string_view name) {
  for (const OptionRow& option : verb.options)
    if (option.name == name) return &option;
  return nullptr;
}

}  // namespace tenon
