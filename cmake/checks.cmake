# Checks of the tree as ctest tests, and the list of fuzzers. Included last: it looks at what the folders have defined.

# `fuzzers` builds every libFuzzer target; tools/fuzz reads their names from fuzzers.txt.
get_property(fuzzers GLOBAL PROPERTY TENON_FUZZERS)
if(fuzzers)
  add_custom_target(fuzzers DEPENDS ${fuzzers})
  list(SORT fuzzers)
  list(JOIN fuzzers "\n" fuzzer_lines)
  file(WRITE ${CMAKE_BINARY_DIR}/fuzzers.txt "${fuzzer_lines}\n")
endif()

# style.NAME: one test a rule of tools/check, and the test of tools/check itself.
foreach(rule includes os-headers readme names size format)
  add_test(NAME style.${rule} COMMAND ${CMAKE_SOURCE_DIR}/tools/check ${rule})
endforeach()
add_test(NAME style.check_test COMMAND ${CMAKE_SOURCE_DIR}/tests/style/check_test)

# style.headers: every header of src/ compiles alone. One file a header that includes it and nothing else; built by the test,
# so that `make build` does not pay for it.
file(GLOB_RECURSE headers CONFIGURE_DEPENDS RELATIVE ${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR}/src/*.hh)
set(alone_files)
foreach(header ${headers})
  set(alone ${CMAKE_BINARY_DIR}/headers_alone/${header}.cc)
  file(CONFIGURE OUTPUT ${alone} CONTENT "#include \"${header}\"\n#include \"${header}\"\n")
  list(APPEND alone_files ${alone})
endforeach()
add_library(headers_alone OBJECT EXCLUDE_FROM_ALL ${alone_files})
target_link_libraries(headers_alone PRIVATE tenon_options fmt::fmt spdlog::spdlog)
target_compile_options(headers_alone PRIVATE -O0 -g0)
add_test(NAME style.headers COMMAND ${CMAKE_COMMAND} --build ${CMAKE_BINARY_DIR} --target headers_alone)
set_tests_properties(style.headers PROPERTIES TIMEOUT 900)
