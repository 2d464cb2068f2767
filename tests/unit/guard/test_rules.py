"""What each rule finds, and what it must leave alone, in Chinese and English."""

from __future__ import annotations

import pytest

from tuneloop.guard import pii

# kind, text, the value in it; every row is a strong find
STRONG = [
    ("email", "邮箱zhangsan@qq.com", "zhangsan@qq.com"),  # no \b between 箱 and z: both are word characters
    ("email", "发到zhang.san+work@mail.tsinghua.edu.cn。谢谢", "zhang.san+work@mail.tsinghua.edu.cn"),
    ("email", "邮箱：ｌｉ＠qq.com", "ｌｉ＠qq.com"),
    ("email", "联系/...zhang@qq.com", "zhang@qq.com"),
    ("email", "Write to jane.doe@company.co.uk, please.", "jane.doe@company.co.uk"),
    ("email", '{"to": "boss@company.com"}', "boss@company.com"),
    ("phone", "电话13812345678", "13812345678"),
    ("phone", "患者张三，电话13812345678，身份证号另附", "13812345678"),
    ("phone", "手机是138-1234-5678或139 8765 4321", "138-1234-5678"),
    ("phone", "手机是138-1234-5678或139 8765 4321", "139 8765 4321"),
    ("phone", "联系方式：+86 13812345678", "+86 13812345678"),
    ("phone", "打8613812345678找我", "8613812345678"),
    ("phone", "请拨打010-87654321转8012", "010-87654321转8012"),
    ("phone", "座机（0571）88889999", "（0571）88889999"),
    ("phone", "联系电话：87654321", "87654321"),
    ("phone", "１３８１２３４５６７８", "１３８１２３４５６７８"),
    ("phone", "<td>13812345678</td>", "13812345678"),
    ("phone", "**13812345678**人工客服", "13812345678"),
    ("phone", "拨13812345678/13912345679", "13912345679"),
    ("phone", "user=13812345678", "13812345678"),
    ("phone", "Call me at (415) 867-5309.", "(415) 867-5309"),
    ("phone", "415-867-5309 is my number", "415-867-5309"),
    ("phone", "+1 415 867 5309", "+1 415 867 5309"),
    ("phone", "+1-210-468-6750x97201", "+1-210-468-6750x97201"),
    ("phone", "((665)886-6266x6203)", "(665)886-6266x6203"),
    ("phone", "or 001-424-264-1845 ext. 99", "001-424-264-1845 ext. 99"),
    ("phone", "London office: +44 20 7123 4567", "+44 20 7123 4567"),
    ("phone", 'phone_number": "4158675309"', "4158675309"),
    ("phone", "Mobile: 9876543210", "9876543210"),
    ("cn_id", "身份证号11010519491231002X。", "11010519491231002X"),
    ("cn_id", "他是440524188001010014", "440524188001010014"),  # the example of GB 11643
    ("cn_id", "ID 110101 19900307 8515 ok", "110101 19900307 8515"),
    ("cn_id", "身份证号码：110101199003078516", "110101199003078516"),  # mistyped, but the text says what it is
    ("cn_id", "身份证号110101900307851", "110101900307851"),
    ("us_ssn", "SSN: 219-09-9998", "219-09-9998"),
    ("us_ssn", "social security number is 219099998", "219099998"),
    ("us_ssn", "他的社会安全号码：219 09 9998", "219 09 9998"),
    ("bank_card", "卡号6222020212345678909", "6222020212345678909"),
    ("bank_card", "转到6217 9988 8000 1234 569这张卡", "6217 9988 8000 1234 569"),
    ("bank_card", "visa 4111-1111-1111-1111 exp 12/27", "4111-1111-1111-1111"),
    ("bank_card", "4111 1111 1111 1111 123", "4111 1111 1111 1111"),
    ("bank_card", "Amex 3782 822463 10005", "3782 822463 10005"),
    ("bank_card", "信用卡号：4111111111111112", "4111111111111112"),  # mistyped
    ("ip", "IP是192.168.1.5", "192.168.1.5"),
    ("ip", "来自114.25.36.47的请求", "114.25.36.47"),
    ("ip", "login from 82.14.7.233 failed", "82.14.7.233"),
    ("ip", "Host 2a02:8109:9c40:1d8::7e2f is up", "2a02:8109:9c40:1d8::7e2f"),
    ("ip", "IP: 9.9.9.9", "9.9.9.9"),
    ("passport", "护照号码是E12345678", "E12345678"),
    ("passport", "Passport No.: 512345678", "512345678"),
    ("passport", '"passport_number": "EA1234567"', "EA1234567"),
    ("passport", "港澳通行证C12345678", "C12345678"),
    ("url_credentials", "postgres://bob:s3cret@db.internal.cn:5432/x", "bob:s3cret@db.internal.cn"),
    ("url_credentials", "打开https://a.cn/x?id=3&token=9f8e7d6c5b4a看看", "9f8e7d6c5b4a看看"[:12]),
    ("url_credentials", "https://h.com/?sig=aa11bb22cc&api_key=Zk83jdkw92", "Zk83jdkw92"),
    ("secret_key", "密钥sk-proj-a1B2c3D4e5F6g7H8i9J0", "sk-proj-a1B2c3D4e5F6g7H8i9J0"),
    ("secret_key", "AKIAQ3EGRTX7ZBPLMN42", "AKIAQ3EGRTX7ZBPLMN42"),
    ("secret_key", "export GH=ghp_16C7e42F292c6912E7710c838347Ae178B4a", "ghp_16C7e42F292c6912E7710c838347Ae178B4a"),
    ("secret_key", "api_key = 'f81d4fae7dec11d0a76500a0c91e6bf6'", "f81d4fae7dec11d0a76500a0c91e6bf6"),
    ("secret_key", "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
     "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N"),
    ("secret_key", "-----BEGIN RSA PRIVATE KEY-----\nMIIEow+/IBAAKCAQEA3\nx9=\n-----END RSA PRIVATE KEY-----",
     "-----BEGIN RSA PRIVATE KEY-----\nMIIEow+/IBAAKCAQEA3\nx9=\n-----END RSA PRIVATE KEY-----"),
    ("medical_record", "病历号：ZY20231234", "ZY20231234"),
    ("medical_record", "住院号00123456，床号12", "00123456"),
    ("medical_record", "医保卡号是330106 1234", "330106 1234"),
    ("medical_record", "MRN: 4482019", "4482019"),
    ("medical_record", "medical_record_number\": \"88-12-34\"", "88-12-34"),
    ("medical_record", "Patient ID P102938", "P102938"),
    ("licence_plate", "车牌京A12345", "京A12345"),
    ("licence_plate", "一辆粤B·D12345停在路边", "粤B·D12345"),
    ("licence_plate", "沪C8M2K9被拖走", "沪C8M2K9"),
    ("licence_plate", "贵B-01243", "贵B-01243"),
    ("date", "出生日期：1990-03-07", "1990-03-07"),
    ("date", "我出生于1990年3月7日", "1990年3月7日"),
    ("date", "DOB: 03/07/1990", "03/07/1990"),
    ("date", '"date_of_birth": "March 7, 1990"', "March 7, 1990"),
]  # fmt: skip

# kind, text, the value in it; hints for a person to look at
WEAK = [
    ("email", "john@example.com", "john@example.com"),  # RFC 2606: nobody gets mail there
    ("email", "login('yourname@yourdomain.com')", "yourname@yourdomain.com"),
    ("phone", "(415) 555-0142", "(415) 555-0142"),  # reserved for fiction
    ("phone", "热线400-820-8820", "400-820-8820"),
    ("cn_id", "编码110101199003078516", "110101199003078516"),
    ("cn_id", "编码110101900307851", "110101900307851"),
    ("ip", "ping 192.0.2.17", "192.0.2.17"),  # RFC 5737
    ("ip", "2001:db8::8a2e:370:7334", "2001:db8::8a2e:370:7334"),
    ("passport", "登记E12345678一本", "E12345678"),
    ("person_name", "患者张三，电话另附", "张三"),
    ("person_name", "请李小明医生会诊", "李小明"),
    ("person_name", "张先生您好", "张先生"),
    ("person_name", "姓名：欧阳明月\n性别：女", "欧阳明月"),
    ("person_name", "我叫王伟，今年三十", "王伟"),
    ("person_name", "Dear Dr. Amy Lee, thank you", "Amy Lee"),
    ("person_name", '{"name": "John Q. Smith"}', "John Q. Smith"),
    ("person_name", "My name is Maria Garcia.", "Maria Garcia"),
    ("address", "我住在北京市海淀区中关村大街27号3单元501室。", "北京市海淀区中关村大街27号3单元501室"),
    ("address", "地址：浙江省杭州市西湖区文三路", "浙江省杭州市西湖区文三路"),
    ("address", "住在天津市红桥区柳州路E座 300130", "天津市红桥区柳州路E座 300130"),
    ("address", "ship it to 1600 Amphitheatre Road, please", "1600 Amphitheatre Road"),
    ("address", "228 W 10th St, New York, NY 10014", "228 W 10th St, New York, NY 10014"),
    ("date", "会诊定于2024年5月6日", "2024年5月6日"),
    ("date", "on 6th May 2024 at noon", "6th May 2024"),
    ("password", "密码是hunter2x", "hunter2x"),
    ("password", '"password": "aB3#fG7!kL9@"', "aB3#fG7!kL9@"),
]

NOTHING = [
    "订单号13812345678已发货",  # an order number may look like a mobile number
    "病历编号：13812345678x",
    "record number 13812345678",
    "tracking no. 15912345678",
    "13812345678 + 5 = 13812345683",
    "总计13812345678元",
    "人口约13800000000",
    "y = 13912345678",
    "时间戳1699999999999",
    "timestamp 1700000000",
    "ISBN 978-7-111-54742-6",
    "ISBN 9787111547426",
    "圆周率3.14159265358979323846",
    "1234567890123456789012345678901234567890",
    "12:30:45 与 2019-2020 学年",
    "答案是 48+24=<<48+24=72>>72，共 1,000,000,000 个",
    "3 200 400 5000",
    "call 911 or 112, 拨打110",
    "iPhone 15 Pro 2023",
    "the mobile market (2019-2020) grew",
    "123-456-7890 is a sample",  # no area begins with 1
    "+86 12345",
    "5 +123456789",
    "身份证号990101199003078515",  # no province 99
    "110101199013078515",  # no month 13
    "卡号 1234567890123456",
    "订单4111111111111111",
    "4111 1111 1111 1112",  # fails Luhn, and nothing says that it is a card
    "4000000000000000 atoms",
    "SSN 000-12-3456, 666-12-3456, 900-12-3456, 219-00-9998, 219-09-0000",
    "219099998",
    "version 1.2.3.4",
    "版本10.0.19.41",
    "第3.1.2.4节",
    "Chrome/120.0.0.0 Safari",
    "1.2.3.4",
    "10.0.0.0/8 与掩码255.255.255.0，127.0.0.1",
    "OID 1.3.6.1.4.1.311",
    "+192.168.1.5",
    "300.1.2.3",
    "12:30:45 std::vector abc::def x[1::2] 00:1A:2B:3C:4D:5E",
    "护照有效期10年，passport 2023",
    "https://example.org/?page=2&code=zh https://h.com/?token=YOUR_TOKEN_1 https://h.com/?key=abcdefghij",
    "task-force sk-learn-is-a-great-library-for-that AKIAIOSFODNN7EXAMPLE",
    "token = tokenizer.encode(text)",
    "病历书写规范2023版，患者 ID 一栏",
    "the patient walked 12345 steps",
    "最新GPT4000发布，阿里云ECS20200",
    "京ABCDEF 京A1234 京I12345",
    "@app.route('/x') a@b 你@我 git@github.com:user/repo.git A@B.dot(x)",
    "他于2023年2月30日", "99/99/2023", "v1.12.2023.4",
    "高级经理和项目经理开会", "患者张口困难", "Dear Sir or Madam,", "Mr. and Mrs.",
    "第一条路5公里", "密码错误", "password: ******", "password must be long",
    "", "你好", "\x00[PHONE]\x00",
]  # fmt: skip


NOT_STRONG = [
    "2023-05-06 12:30:45",
    "http://user:your_password1@host.com/",
    "call 2023-05-06 or 12345.67",
    "手机 12999.00 元",
    "phone 2019-2020",
    "Mr. Smith owes $13,812,345,678 to Dr. Lee",
    "我在南京路100号等张老师，密码hunter2x",
]


@pytest.mark.parametrize("text", NOT_STRONG)
def test_hints_at_most(text: str) -> None:
    assert pii.find(text, strength="strong") == []


@pytest.mark.parametrize(("kind", "text", "value"), STRONG)
def test_strong_finds(kind: str, text: str, value: str) -> None:
    found = [(one.kind, one.text) for one in pii.find(text) if one.strength == "strong"]
    assert (kind, value) in found
    assert [one.text for one in pii.find(text, strength="strong")] == [value for _, value in found]


def test_numbers_in_a_row() -> None:
    found = pii.find("13812345678/13912345679, 415-867-5309; +44 20 7123 4567 13712345678")
    assert [one.text for one in found] == [
        "13812345678", "13912345679", "415-867-5309", "+44 20 7123 4567", "13712345678",
    ]  # fmt: skip


@pytest.mark.parametrize(("kind", "text", "value"), WEAK)
def test_hints(kind: str, text: str, value: str) -> None:
    assert (kind, value, "weak") in [(one.kind, one.text, one.strength) for one in pii.find(text)]
    assert pii.find(text, strength="strong") == []


@pytest.mark.parametrize("text", NOTHING)
def test_nothing_personal(text: str) -> None:
    assert pii.find(text) == []
